"""Names that are none, picked by hand, under a phrase of the reason each must be refused with."""

from __future__ import annotations

CONTROL, SURROGATE, ASCII, SPACE = "control characters", "half a character", "only ASCII", "spaces are not"
CAPITAL, UNDERSCORE, PATH, PERCENT = "capital letters", "underscores are podman's", "not a path", "percent-encoded"
COLON, PUNCTUATION, START, PODMAN = "a colon stands only", "punctuation is not", "it must start with p://", "podman spells it"
KIND, EMPTY, NOTHING, LONG = "it has no kind", "it is empty", "nothing follows", "at most 32"
DOUBLE, TRAILING, LETTER = "not in twos", "does not end with a hyphen", "starts with a letter"

BAD: dict[str, tuple[str, ...]] = {
    EMPTY: ("",),
    NOTHING: ("p://", "sys://"),
    KIND: ("work", "p", "s", "sys", "y", "a-b", "persona", "tenant", "localhost", "null", "none", "true", "p-work", "sys-ai", "a" * 33),
    PODMAN: (
        "p__work", "sys__ai", "p__", "sys__", "p__Work", "p____work", "sys__-", "p__p://work", "p__work\n", "p__a__b", "sys__p__work", "p__../x",
    ),
    START: (
        # other kinds, and near misses of ours
        "t://work", "persona://work", "tenant://ai", "system://ai", "user://work", "pp://work", "sy://ai", "syss://ai", "spy://ai", "http://work",
        "https://a", "file:///etc/passwd", "data:,x", "javascript:alert(1)", "docker://work", "oci:work", "localhost/work", "127.0.0.1",
        # too few or too many marks
        "p:work", "p:/work", "p//work", "p/work", "p;//work", "p:\\\\work", "p.//work", "p :// work", "sys:ai", "sys:/ai", "sys//ai", "sys/ai",
        "://work", "//work", "/work", ":work", ":", "/", "//", "://", "p:", "p:/", "sys:", "sys:/", "p-://work", "1://work", "-://x", "_://x",
        # the other's grammar
        "p_work", "sys_ai", "_p__work", "__p://work", "-p://work", "p-p://work", "P__work", "SYS__ai", "Sys__ai", "s__ai", "sy__ai", "syst__ai",
        # case
        "P://work", "SYS://ai", "Sys://ai", "sYs://ai", "syS://ai", "Work", "WORK", "wOrk", "P", "PERSONA://WORK",
        # something in front
        " p://work", "\tp://work", "\np://work", "\r\np://work", "\x00p://work", "\ufeffp://work", "\u200bp://work", "\u202ep://work",
        "\x1b[31mp://work", "'p://work'", '"p://work"', "<p://work>", "(p://work)", "`p://work`", "$(p://work)", "--name=p://work", "./p://work",
        "../p://work", "/persist/p://work", "%70://work", "\\p://work", "*", "?", "~", ".", "..", "$p", "-", "--", "-h", "--help", "@", "#", "%",
        # look-alikes of "p", "s", "y", ":" and "/"
        "\u0440://work", "\uff50://work", "\U0001d429://work", "\u03c1://work", "\u24df://work", "\u0455ys://ai", "s\u0443s://ai",
        "\uff53\uff59\uff53://ai", "p\uff1a//work", "p\u2236//work", "p\ua789//work", "p\u02d0//work", "p:\u2044\u2044work", "p:\u2215/work",
        "p:/\uff0fwork", "p:\u29f8/work", "p\u0301://work", "sys\u0301://ai", "\ud800", "\udcff", "\U0001f427", "\u00df://work", "\ufb06://x",
    ),
    CAPITAL: (
        "p://Work", "p://WORK", "p://worK", "p://wOrk", "sys://AI", "sys://Ai", "p://a-B", "p://A", "p://a1B", "sys://aI", "p://camelCase",
    ),
    UNDERSCORE: (
        "p://_", "p://__", "p://a_b", "p://_work", "p://work_", "p://a__b", "p://p__work", "sys://sys__ai", "sys://a_i", "p://sys__ai",
        "sys://p__work", "p://a-_b",
    ),
    PATH: (
        "p:///", "p:////", "p://.", "p://..", "p://../", "p://../../etc/passwd", "p:///etc/passwd", "p://web/", "p://web/..", "p://a/b",
        "p://./work", "p://work.", "p://.work", "p://a.b", "p://a\\b", "p://\\\\host", "p://..\\..\\x", "sys:///", "sys://..", "sys://../p/work",
        "sys://ai/", "sys://ai/..", "p://a/./b", "p:///work", "p://work.service", "p:////work", "p://a..b", "sys://ai.sock",
    ),
    PERCENT: (
        "p://%", "p://%00", "p://%2e%2e", "p://%2F", "p://a%20b", "p://work%0a", "p://%77ork", "p://%u0041", "sys://%61i", "p://a%", "p://%s%s%n",
        "p://%(name)s",
    ),
    COLON: ("p://:", "p://a:b", "p://p:", "p://p://work", "p://sys://ai", "sys://sys://ai", "sys://p://work", "p://a:8080", "p://c:"),
    LETTER: (
        "p://-", "p://--", "p://-work", "p://--work", "p://-h", "p://--help", "p://-rf", "p://9", "p://0", "p://1work", "p://007", "p://2-b",
        "sys://-", "sys://-ai", "sys://0ai", "p://-1", "p://--privileged", "p://-v", "p://1.2.3.4",
    ),
    DOUBLE: ("p://a--b", "p://a--", "p://a---b", "p://a-b--c", "sys://a--i", "p://xn--wrk-sna", "p://a--9", "p://a1--b"),
    TRAILING: ("p://a-", "p://work-", "sys://ai-", "p://a-b-", "p://a1-", "p://" + "a" * 31 + "-"),
    LONG: (
        "p://" + "a" * 33, "p://" + "a" * 64, "p://" + "a" * 255, "p://" + "a" * 4096, "p://" + "a" * 1_000_000, "sys://" + "a" * 33,
        "p://" + "a-" * 16 + "a", "p://" + "ab" * 17, "sys://" + "z9" * 20, "p://" + "a" * 32 + "-", "p://" + "a" * 32 + "_",
        "p://" + "a" * 32 + "\n", "p://" + "a" * 32 + "\x00",
    ),
    SPACE: ("p:// ", "p:// work", "p://work ", "p://my work", "p://a  b", "sys://a i", "sys:// ai", "p://a -b"),
    CONTROL: (
        "p://\n", "p://work\n", "p://work\n\n", "p://work\r", "p://work\r\n", "p://wo\nrk", "p://\nwork", "sys://ai\n", "p://work\x00", "p://\x00",
        "p://a\x00b", "sys://ai\x00", "p://work\t", "p://a\tb", "p://work\x07", "p://wor\x08k", "p://work\x0b", "p://work\x0c", "p://work\x1a",
        "p://\x1b[2J", "p://work\x1b[0m", "p://work\x1b]0;x\x07", "p://work\x1c", "p://work\x1f", "p://work\x7f", "p://work\x80", "p://work\x85",
        "p://work\x9b31m", "p://\x01", "sys://\x04",
    ),
    SURROGATE: (
        "p://\ud800", "p://a\udfff", "p://work\udcff", "p://\udc80", "sys://ai\ud83d", "p://\udce9t\udce9", "p://a\udb7fb", "p://work\udc0a",
    ),
    ASCII: (
        # letters that look like a-z, from other alphabets and from their styled copies
        "p://w\u043erk", "p://\u0430", "p://\u0441ode", "p://w\u03bfrk", "p://\u0501og", "p://\u217eode", "p://\uff57ork", "p://\uff41",
        "p://\U0001d41aork", "p://\U0001d5ba", "p://\u24d0", "p://\u1d00", "p://\u0251", "p://wor\u212a", "p://\u0131n", "p://w\u00f6rk",
        "p://\u00e9", "p://na\u00efve", "p://stra\u00dfe", "p://\ufb01le", "p://\u00aa", "p://\u00ba", "p://\u017fys", "sys://\u0430i", "sys://a\u0456",
        "sys://a\u0131", "sys://\uff41\uff49", "p://\u05d0", "p://\u0645", "p://\u4f5c\u696d", "p://\u30ef", "p://\ud55c", "p://\u0e01", "p://\u0905",
        # digits that are none
        "p://a\u0661", "p://a\u0967", "p://a\uff11", "p://a\u00b2", "p://a\u2460", "p://a\U0001d7d9", "p://a\u2070", "p://a\u215f",
        # hyphens that are none
        "p://a\u2010b", "p://a\u2011b", "p://a\u2012b", "p://a\u2013b", "p://a\u2014b", "p://a\u2212b", "p://a\ufe63b", "p://a\uff0db", "p://a\u00adb",
        "p://a\u058ab",
        # underscores, dots and strokes that are none
        "p://a\uff3fb", "p://a\u203fb", "p://a\uff0eb", "p://a\u2024b", "p://a\u3002b", "p://a\u2044b", "p://a\uff0fb", "p://a\u2215b", "p://a\uff1ab",
        # spaces and what cannot be seen
        "p://work\u00a0", "p://a\u2003b", "p://a\u3000b", "p://work\u2028", "p://work\u2029", "p://wo\u200brk", "p://wo\u200crk", "p://wo\u200drk",
        "p://wo\u2060rk", "p://work\ufeff", "p://\u115f", "p://\u3164", "p://\uffa0", "p://work\u180e", "p://work\U000e0041", "p://work\ufe0f",
        # what turns a line around, marks on letters, pictures, and what is no character
        "p://\u202ekrow", "p://work\u202c", "p://\u2066work\u2069", "p://\u200fwork", "p://work\u061c", "p://e\u0301", "p://wor\u0335k", "p://\u0301",
        "p://a\u20dd", "p://a\u0337", "p://\u2764", "p://\U0001f427", "p://work\U0001f600", "p://\U0001f468\u200d\U0001f4bb", "p://\ufffd",
        "p://\uffff", "p://\ue000", "p://\U0010ffff",
    ),
    PUNCTUATION: (
        "p://*", "p://?", "p://work?", "p://work*", "p://[a]", "p://{a,b}", "p://$HOME", "p://${x}", "p://$(id)", "p://`id`", "p://a;b", "p://a|b",
        "p://a&b", "p://a>b", "p://a<b", "p://!x", "p://a!", "p://#", "p://a#b", "p://~", "p://~root", "p://a@b", "p://root@work", "p://a=b", "p://a+b",
        "p://a,b", "p://'", 'p://"', "p://work'", "p://'; drop table machine; --", "p://(a)", "p://a^b", "sys://ai;id", "sys://$x", "p://a;rm -rf /",
        "p://&&", "p://||",
    ),
}  # fmt: skip
