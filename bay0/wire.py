"""What both ends of the control socket agree on, apart from JSON-RPC 2.0 itself."""

SOCKET = "/run/bay0/control.sock"
FRAME_MAX = 64 << 10  # bytes in one request
