"""Where the parts of the umbilical meet: sockets, directories, accounts. All on /run, so nothing of it outlives a boot."""

RUN = "/run/bay0/ai"  # root, 0755
CONSOLE = f"{RUN}/ai.sock"  # 0600, root: `bay0 ask`, `bay0 --validate`
PERSONAS = f"{RUN}/personas"  # a directory for each persona that was granted AI: p__LABEL (root, 0755) with ai.sock (0666) in it ...
IN_PERSONA = "/run/ai"  # ... mounted read-only there
SOCKET = "ai.sock"
TENANT_DIR = f"{RUN}/tenant"  # the AI container's user, group UMBILICAL_GID, 2770; mounted rw into it at /run/ai
TENANT_USER = 1000  # inside the container, and so on the disk: the mount is idmapped
TENANT_SOCKET = f"{TENANT_DIR}/server.sock"

UMBILICAL = "sys://umbilical"  # the forwarder's machine, of kind tenant
UMBILICAL_UID = UMBILICAL_GID = 990  # scripts/rootfs/etc/passwd and group: `umbilical`
FORWARDER = "--umbilical-forwarder"  # the hidden entry of the program
CONSOLE_NAME = "console"  # who speaks on CONSOLE; personas are called by their names, p://work

IMAGE = "localhost/spine-ai:1"
