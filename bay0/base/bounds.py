"""Every bound of the program, in seconds, in one place. All are multiplied by `bay0.patience=N` of the kernel command line."""

from attrs import fields, frozen


@frozen(eq=False, repr=False)
class Bounds:
    """Seconds, before patience. Sources: handoff rule 7 (reads), docs/ARCHITECTURE.md, storage health (one bound for each kind of work)."""

    worker_start: float = 3.0
    find: float = 2.0
    mount: float = 4.0  # ext4 may replay its journal
    open: float = 2.0
    migrate: float = 5.0
    read: float = 0.2  # the handoff's number
    commit: float = 1.0
    flush: float = 5.0
    genesis: float = 1.0
    close: float = 6.0
    grow: float = 300.0  # the filesystem to the size of its disk; what was added by then stays
    copy: float = 7200.0  # of a home, however large: a deadline of its process, which says how far it is
    slots_copy: float = 850.0  # an image of some hundred MB to a slow stick and back; each of these is less than its state's deadline
    slots_read: float = 160.0  # the same, back only
    slots: float = 15.0  # what is small in them
    modprobe: float = 4.0
    term_grace: float = 2.0
    kill_grace: float = 1.0
    pipe_grace: float = 0.25
    verb: float = 5.0
    frame: float = 10.0  # from its first byte to its last
    storage_retry: float = 15.0
    exit_status: float = 1.0  # from a container's last process to conmon's word
    gather: float = 10.0  # of all that a boot clears together
    net: float = 10.0  # a command about namespaces, cards and filters
    envelope: float = 3.0  # from podman's word to the kernel's, of a container's envelope
    freeze: float = 10.0  # from our write to the kernel's word; a process that waits for a disk freezes when it has its answer
    polite_stop: float = 10.0  # of all personas together, when the spine goes down
    slow_stop: float = 5.0  # then the console says what a stop waits for, and how to end it by force
    panic_sync: float = 3.0
    settle: float = 6.0  # the flush before a sleep: what a close takes
    suspend: float = 25.0  # the kernel gives tasks 20 s to freeze
    validate: float = 30.0  # the whole of it
    validate_freezer: float = 25.0
    validate_freeze: float = 2.0  # of its probe, which waits for nothing
    validate_umbilical: float = 8.0  # the forwarder has 5 for its part
    validate_check: float = 5.0  # each of the others
    umbilical: float = 5.0  # what the forwarder is asked and can say at once; one that misses it hangs, and is ended
    umbilical_hello: float = 30.0  # from its start until the forwarder speaks; one that misses it hangs, too
    umbilical_still: float = 60.0  # that the AI's server may get nowhere while it loads its model and makes its first token
    umbilical_warm: float = 1800.0  # for all of that, however it gets on
    umbilical_drain: float = 30.0  # what is in flight may take so long to end
    compositor: float = 2.0  # any answer of one that is ready; who misses it hangs, and is begun anew
    limits: float = 20.0  # writing a container's limits: a smaller one of memory waits until that is given back
    turn: float = 600.0  # in a queue of ours, before podman is called at all
    podman_first: float = 60.0  # the first call of a boot refreshes podman's database
    podman_list: float = 10.0
    podman_run: float = 20.0
    podman_quick: float = 10.0  # unpause, remove an image
    podman_remove: float = 15.0  # and what the caller gives its containers to end in
    podman_each: float = 0.5  # for each further container of one removal
    podman_load: float = 120.0
    podman_check: float = 60.0

    def scaled(self, patience: float) -> "Bounds":
        """Return the bounds of a machine that is `patience` times slower."""
        return Bounds(*(getattr(self, a.name) * patience for a in fields(Bounds)))
