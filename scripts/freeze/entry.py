"""The frozen program's first module: PyInstaller wants a script, bay0 has one main()."""

from bay0.__main__ import main

raise SystemExit(main())
