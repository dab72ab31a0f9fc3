/* counter: a window with a number that goes on, for the persona of that name.
 *
 * It speaks the Wayland protocol itself (wayland.xml, xdg-shell.xml, xdg-decoration-unstable-v1.xml) and paints into
 * shared memory (wl_shm): no library is needed, so the program is the whole image. It counts whether it is seen or not, and
 * paints when the compositor asks for a picture. A tick that it slept through, frozen, is not made up for: the number goes
 * on from where it stood.
 *
 * Below the number is the same count for programs, the low 16 bits of it as squares: black 0, white 1, the highest bit on the
 * left, between one magenta and one cyan square. tests/shared/counting.py reads them off a picture.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 640, HEIGHT = 400, SIDE_MAX = 16384, BITS = 16 };
enum { BLACK = 0x000000, WHITE = 0xffffff, FIRST = 0xff00ff, LAST = 0x00ffff };
enum { MESSAGE_MAX = 4096, PATIENCE_MS = 60000, AGAIN_MS = 500 };
enum { KEY_F = 33, HAS_KEYBOARD = 2 }; /* linux/input-event-codes.h; wl_seat.capability */
enum { DISPLAY = 1, XRGB8888 = 1, SERVER_SIDE = 2 };

static const char HELP[] =
    "Usage: counter [--colour RRGGBB] [--every MS] [--from N] [--title TEXT]\n\n"
    "Shows a number in a window, and counts on.\n\n"
    "  --colour RRGGBB  of the window (default 1d4f73)\n"
    "  --every MS       milliseconds from one number to the next, at most 60000 (default 100); 0: without a pause\n"
    "  --from N         the first number (default 0)\n"
    "  --title TEXT     of the window (default counter)\n\n"
    "The key f: full screen, and back. On USR1 it asks for full screen on the output and for the keys, as any program may, seen or\n"
    "not; on USR2 it goes on in a child, with the same window, and ends: what a compositor should make of both, tests look at.\n\n"
    "Status: 0 the window was closed, or TERM came; 1 there is no compositor, or it refused; 2 wrong words.\n";

static uint32_t colour = 0x1d4f73, count;
static int every = 100;
static const char *title = "counter";

/* ---- the connection; all of it begins anew with another compositor */

struct buffer { uint32_t id, *pixels; int width, height, busy; };

static int peer = -1;
static char out[MESSAGE_MAX * 4], in[MESSAGE_MAX * 4];
static size_t out_size, in_size;
static uint32_t next_id, freed[64];
static int freed_count;
static uint32_t registry, compositor, shm, base, surface, xdg, toplevel, decorations, decoration, synced, frame;
static struct buffer buffers[2];
static uint32_t seat, keyboard, output, activation, token;
static int width, height, asked_width, asked_height, configured, dirty, closed, full;
static volatile sig_atomic_t wants_all, goes_on;

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void say(const char *what) { dprintf(2, "counter: %s\n", what); }

static void asked(int signal) { if (signal == SIGUSR1) wants_all = 1; else goes_on = 1; }

static void ended(int signal) { (void)signal; _exit(0); }

/* An object's number. The compositor's table has no gaps: numbers go up by one, and those that it gave back are taken first. */
static uint32_t new_id(void) { return freed_count ? freed[--freed_count] : next_id++; }

static void lost(void) {
    if (peer >= 0) close(peer);
    peer = -1;
}

/* Send what waits, and with it one descriptor, if it is not -1. */
static void flush(int fd) {
    size_t sent = 0;
    while (peer >= 0 && sent < out_size) {
        struct iovec part = {out + sent, out_size - sent};
        union { struct cmsghdr head; char room[CMSG_SPACE(sizeof fd)]; } control;
        struct msghdr message = {0};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (fd >= 0) {
            memset(&control, 0, sizeof control);
            message.msg_control = &control;
            message.msg_controllen = sizeof control.room;
            control.head.cmsg_level = SOL_SOCKET;
            control.head.cmsg_type = SCM_RIGHTS;
            control.head.cmsg_len = CMSG_LEN(sizeof fd);
            memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
        }
        ssize_t done = sendmsg(peer, &message, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) { lost(); break; }
        sent += (size_t)done;
        fd = -1;
    }
    out_size = 0;
}

static void word(uint32_t value) { memcpy(out + out_size, &value, 4); out_size += 4; }

/* The head of a request with `words` words behind it (32 bits each). */
static void request(uint32_t object, uint32_t opcode, uint32_t words) {
    if (out_size + 8 + words * 4 > sizeof out) flush(-1);
    word(object);
    word((8 + words * 4) << 16 | opcode);
}

static uint32_t text_words(const char *text) { return 1 + (uint32_t)(strlen(text) + 4) / 4; }

static void text(const char *value) {
    size_t length = strlen(value) + 1, padded = (length + 3) / 4 * 4;
    word((uint32_t)length);
    memset(out + out_size, 0, padded);
    memcpy(out + out_size, value, length);
    out_size += padded;
}

static uint32_t bind_global(uint32_t name, const char *interface, uint32_t version) {
    uint32_t id = new_id();
    request(registry, 0, 3 + text_words(interface));
    word(name);
    text(interface);
    word(version);
    word(id);
    return id;
}

/* ---- the picture */

static void fill(struct buffer *into, int x, int y, int w, int h, uint32_t ink) {
    if (x < 0) { w += x; x = 0; }
    if (y < 0) { h += y; y = 0; }
    if (x + w > into->width) w = into->width - x;
    if (y + h > into->height) h = into->height - y;
    for (int row = y; row < y + h; row++)
        for (int column = x; column < x + w; column++) into->pixels[(size_t)row * into->width + column] = ink;
}

/* A digit of seven bars: top, upper left, upper right, middle, lower left, lower right, bottom. */
static void digit(struct buffer *into, int value, int x, int y, int w, int h, int thick) {
    static const unsigned char BARS[10] = {0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f};
    int bars = BARS[value], half = (h - thick) / 2;
    if (bars & 1) fill(into, x, y, w, thick, WHITE);
    if (bars & 2) fill(into, x, y, thick, half + thick, WHITE);
    if (bars & 4) fill(into, x + w - thick, y, thick, half + thick, WHITE);
    if (bars & 8) fill(into, x, y + half, w, thick, WHITE);
    if (bars & 16) fill(into, x, y + half, thick, h - half, WHITE);
    if (bars & 32) fill(into, x + w - thick, y + half, thick, h - half, WHITE);
    if (bars & 64) fill(into, x, y + h - thick, w, thick, WHITE);
}

static void paint(struct buffer *into) {
    char digits[16];
    int length = snprintf(digits, sizeof digits, "%u", count), shown = length < 4 ? 4 : length;
    int w = into->width, h = into->height;
    fill(into, 0, 0, w, h, colour);
    /* the number: in the upper two thirds, as large as fits */
    int tall = h / 2, wide = tall * 3 / 5;
    if (wide * shown * 5 / 4 > w * 9 / 10) { wide = w * 9 / 10 * 4 / 5 / shown; tall = wide * 5 / 3; }
    int pitch = wide * 5 / 4, left = (w - pitch * length + pitch - wide) / 2, top = (h * 2 / 3 - tall) / 2;
    for (int at = 0; at < length; at++)
        digit(into, digits[at] - '0', left + at * pitch, top, wide, tall, wide / 6 + 1);
    /* the squares: 18 with a quarter of one between, in the lower third */
    int side = w * 9 / 10 / (18 + 17 / 4 + 1);
    if (side > h / 5) side = h / 5;
    if (side < 1) return;
    int gap = side / 4;
    left = (w - 18 * side - 17 * gap) / 2;
    top = h * 5 / 6 - side / 2;
    for (int at = 0; at < BITS + 2; at++) {
        uint32_t ink = at == 0 ? FIRST : at == BITS + 1 ? LAST : count >> (BITS - at) & 1 ? WHITE : BLACK;
        fill(into, left + at * (side + gap), top, side, side, ink);
    }
}

/* Memory for a picture of the window's size. What was there is let go: the compositor has its own hold on it. */
static int make_buffer(struct buffer *made) {
    size_t size = (size_t)width * height * 4;
    int fd = memfd_create("counter", MFD_CLOEXEC);
    if (made->id) {
        munmap(made->pixels, (size_t)made->width * made->height * 4);
        request(made->id, 0, 0);
        made->id = 0;
    }
    void *at = fd < 0 || ftruncate(fd, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) { say("no memory for a picture"); exit(1); }
    uint32_t pool = new_id();
    flush(-1);
    request(shm, 0, 2);
    word(pool);
    word((uint32_t)size);
    flush(fd);
    close(fd);
    made->id = new_id();
    made->pixels = at;
    made->width = width;
    made->height = height;
    request(pool, 0, 6);
    word(made->id);
    word(0);
    word((uint32_t)width);
    word((uint32_t)height);
    word((uint32_t)width * 4);
    word(XRGB8888);
    request(pool, 1, 0);
    return peer >= 0;
}

/* Show the count, if one of the two buffers is free. */
static void draw(void) {
    struct buffer *into = !buffers[0].busy ? &buffers[0] : !buffers[1].busy ? &buffers[1] : NULL;
    if (!into) return;
    if ((!into->id || into->width != width || into->height != height) && !make_buffer(into)) return;
    paint(into);
    into->busy = 1;
    dirty = 0;
    request(surface, 1, 3);
    word(into->id);
    word(0);
    word(0);
    request(surface, 9, 4);
    word(0);
    word(0);
    word((uint32_t)width);
    word((uint32_t)height);
    if (!frame) {
        request(surface, 3, 1);
        word(frame = new_id());
    }
    request(surface, 6, 0);
}

/* ---- what the compositor says */

static void make_window(void) {
    if (!compositor || !shm || !base) { say("the compositor lacks wl_compositor 4, wl_shm or xdg_wm_base"); exit(1); }
    request(compositor, 0, 1);
    word(surface = new_id());
    request(base, 2, 2);
    word(xdg = new_id());
    word(surface);
    request(xdg, 1, 1);
    word(toplevel = new_id());
    request(toplevel, 2, text_words(title));
    text(title);
    request(toplevel, 3, text_words("counter"));
    text("counter");
    if (decorations) {
        request(decorations, 1, 2);
        word(decoration = new_id());
        word(toplevel);
        request(decoration, 1, 1);
        word(SERVER_SIDE);
    }
    request(surface, 6, 0);
}

static void offered(uint32_t name, const char *interface, uint32_t version) {
    if (!strcmp(interface, "wl_compositor") && version >= 4) compositor = bind_global(name, interface, 4);
    else if (!strcmp(interface, "wl_shm")) shm = bind_global(name, interface, 1);
    else if (!strcmp(interface, "xdg_wm_base")) base = bind_global(name, interface, 1);
    else if (!strcmp(interface, "wl_seat") && !seat) seat = bind_global(name, interface, 1);
    else if (!strcmp(interface, "wl_output") && !output) output = bind_global(name, interface, 1);
    else if (!strcmp(interface, "xdg_activation_v1")) activation = bind_global(name, interface, 1);
    else if (!strcmp(interface, "zxdg_decoration_manager_v1")) decorations = bind_global(name, interface, 1);
}

static void full_screen(int wanted, uint32_t on) {
    full = wanted;
    request(toplevel, wanted ? 11 : 12, wanted ? 1 : 0);
    if (wanted) word(on);
}

/* Ask for the whole output, and for the keys: with a token, which the compositor gives. */
static void want_all(void) {
    full_screen(1, output);
    if (!activation) return;
    request(activation, 1, 1);
    word(token = new_id());
    request(token, 3, 0);
}

static void activate(const char *with) {
    request(activation, 2, text_words(with) + 1);
    text(with);
    word(surface);
    request(token, 4, 0);
    token = 0;
}

static void of_seat(uint32_t object, uint32_t opcode, const uint32_t *body, size_t words) {
    if (object == seat && opcode == 0 && words && body[0] & HAS_KEYBOARD && !keyboard) {
        request(seat, 1, 1);
        word(keyboard = new_id());
    } else if (object == keyboard && opcode == 3 && words > 3 && body[2] == KEY_F && body[3]) {
        full_screen(!full, 0);
    }
}

static void of_display(uint32_t opcode, const uint32_t *body, size_t words) {
    if (opcode == 0 && words > 3) {
        dprintf(2, "counter: the compositor refused: %.200s\n", (const char *)(body + 3));
        exit(1);
    }
    if (opcode == 1 && words) {
        if (freed_count < (int)(sizeof freed / sizeof *freed)) freed[freed_count++] = body[0];
    }
}

/* One event. Those that are not named here (formats, outputs entered ...) need no answer. */
static void heard(uint32_t object, uint32_t opcode, const uint32_t *body, size_t words) {
    if (object == DISPLAY) {
        of_display(opcode, body, words);
    } else if (object == registry && opcode == 0 && words > 3) {
        offered(body[0], (const char *)(body + 2), body[words - 1]);
    } else if (object == synced) {
        synced = 0;
        make_window();
    } else if (object == base && opcode == 0 && words) {
        request(base, 3, 1);
        word(body[0]);
    } else if (object == toplevel && opcode == 0 && words > 1) {
        asked_width = (int)body[0];
        asked_height = (int)body[1];
    } else if (object == toplevel && opcode == 1) {
        closed = 1;
    } else if (object == xdg && opcode == 0 && words) {
        width = asked_width > 0 && asked_width <= SIDE_MAX ? asked_width : WIDTH;
        height = asked_height > 0 && asked_height <= SIDE_MAX ? asked_height : HEIGHT;
        request(xdg, 4, 1);
        word(body[0]);
        configured = dirty = 1;
        draw();
    } else if (object == frame) {
        frame = 0;
    } else if (token && object == token && opcode == 0 && words > 1) {
        activate((const char *)(body + 1));
    } else if (object && (object == seat || object == keyboard)) {
        of_seat(object, opcode, body, words);
    }
    for (int at = 0; at < 2; at++)
        if (object == buffers[at].id && opcode == 0) buffers[at].busy = 0;
}

static void hear(void) {
    ssize_t got = recv(peer, in + in_size, sizeof in - in_size, MSG_DONTWAIT);
    size_t at = 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { lost(); return; }
    in_size += (size_t)got;
    while (peer >= 0 && in_size - at >= 8) {
        uint32_t message[MESSAGE_MAX / 4 + 1], size;
        memcpy(message, in + at, 8);
        size = message[1] >> 16;
        if (size < 8 || size % 4 || size > MESSAGE_MAX) { say("what the compositor says makes no sense"); exit(1); }
        if (in_size - at < size) break;
        memcpy(message, in + at, size);
        message[size / 4] = 0; /* the end of any text in it */
        heard(message[0], message[1] & 0xffff, message + 2, size / 4 - 2);
        at += size;
    }
    memmove(in, in + at, in_size - at);
    in_size -= at;
}

/* ---- beginning, and counting */

static void socket_path(struct sockaddr_un *address) {
    const char *directory = getenv("XDG_RUNTIME_DIR"), *name = getenv("WAYLAND_DISPLAY");
    name = name && *name ? name : "wayland-0";
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (*name == '/') snprintf(address->sun_path, sizeof address->sun_path, "%s", name);
    else snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", directory ? directory : "", name);
}

/* Connect, and ask what is there. A socket where nobody listens may be that of a compositor that is starting. */
static void begin(void) {
    struct sockaddr_un address;
    long long until = now_ms() + PATIENCE_MS;
    socket_path(&address);
    for (int at = 0; at < 2; at++) {
        if (buffers[at].id) munmap(buffers[at].pixels, (size_t)buffers[at].width * buffers[at].height * 4);
    }
    memset(buffers, 0, sizeof buffers);
    compositor = shm = base = surface = xdg = toplevel = decorations = decoration = frame = 0;
    seat = keyboard = output = activation = token = 0;
    full = configured = dirty = freed_count = 0;
    in_size = out_size = 0;
    next_id = DISPLAY + 1;
    peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(peer, (struct sockaddr *)&address, sizeof address)) {
        if (errno == ENOENT) {
            dprintf(2, "counter: there is no %s here: no window was granted (manifest: screen = true, then restart it)\n", address.sun_path);
            exit(1);
        }
        if ((errno != ECONNREFUSED && errno != EINTR) || now_ms() > until) {
            dprintf(2, "counter: nobody answers at %s: %s\n", address.sun_path, strerror(errno));
            exit(1);
        }
        poll(NULL, 0, AGAIN_MS);
    }
    request(DISPLAY, 1, 1);
    word(registry = new_id());
    request(DISPLAY, 0, 1);
    word(synced = new_id());
}

static void run(void) {
    long long next = now_ms() + every;
    begin();
    while (!closed) {
        if (goes_on) {
            if (fork()) _exit(0);
            goes_on = 0;
        }
        if (wants_all && configured) {
            wants_all = 0;
            want_all();
        }
        if (configured && dirty && !frame) draw();
        flush(-1);
        if (peer < 0) {
            say("the compositor is gone: waiting for another one");
            poll(NULL, 0, AGAIN_MS);
            begin();
            continue;
        }
        long long left = next - now_ms();
        struct pollfd wait = {peer, POLLIN, 0};
        if (poll(&wait, 1, left > 0 ? (int)left : 0) > 0) hear();
        if (now_ms() < next) continue;
        count++;
        dirty = 1;
        next = every && next + every > now_ms() ? next + every : now_ms() + every;
    }
}

static unsigned long number(const char *word, const char *value, int radix, unsigned long most) {
    char *end = "";
    unsigned long found = value && *value && *value != '-' && *value != '+' ? strtoul(value, &end, radix) : most + 1;
    if (found > most || *end) {
        dprintf(2, "counter: %s takes a number up to %lu%s, not '%s'\n", word, most, radix == 16 ? " in hexadecimal" : "", value ? value : "");
        exit(2);
    }
    return found;
}

int main(int argc, char **argv) {
    signal(SIGTERM, ended);
    signal(SIGINT, ended);
    signal(SIGUSR1, asked);
    signal(SIGUSR2, asked);
    for (int at = 1; at < argc; at += 2) {
        const char *word = argv[at], *value = argv[at + 1];
        if (!strcmp(word, "-h") || !strcmp(word, "--help")) return fputs(HELP, stdout) < 0;
        if (!strcmp(word, "--colour")) colour = (uint32_t)number(word, value, 16, 0xffffff);
        else if (!strcmp(word, "--every")) every = (int)number(word, value, 10, 60000);
        else if (!strcmp(word, "--from")) count = (uint32_t)number(word, value, 10, 0xffffffff);
        else if (!strcmp(word, "--title") && value && strlen(value) < 200) title = value;
        else { dprintf(2, "counter: '%s' is not understood: counter --help\n", word); return 2; }
    }
    if (colour == FIRST || colour == LAST) { say("--colour: ff00ff and 00ffff are the ends of the squares"); return 2; }
    run();
    return 0;
}
