"""What a disk can hold when the power goes: a log of block writes, and the images that a cut at each of its moments may leave.

`ops` reads logs (QEMU's `blklogwrites`, whose format is dm-log-writes), `image` is a disk as a base and what was written
over it, `cut` makes the images: prefixes, reorders within a flush epoch, torn writes. `recorded` makes a log of a program's own
writes to a file. `gptmodel` and `loader` say what firmware, Linux and EFI Boot Guard make of such an image.
"""
