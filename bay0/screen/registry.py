"""What the compositor may offer to its own, and what it must not. Pure.

The list is sway 1.10.1's with the pixman renderer, read from its registry on KMS. A persona is offered 17
fewer (what can look, type, draw over or carry: security-context-v1 keeps those from it). No linux-dmabuf is
there by construction: clients have shared memory only, and what is on the screen is the compositor's own
buffer, never one of a persona that may be frozen.
"""

from __future__ import annotations

from collections.abc import Mapping

NEEDED = frozenset(
    {
        "wl_compositor",
        "wl_seat",
        "wl_shm",
        "xdg_wm_base",
        "wp_security_context_manager_v1",  # a socket for each persona
        "zwlr_screencopy_manager_v1",  # the frame fence
        "zwlr_data_control_manager_v1",  # the clipboard is cleared at each switch
        "zwlr_layer_shell_v1",  # background and bar
    }
)
ALLOWED = NEEDED | {
    "ext_foreign_toplevel_list_v1",
    "ext_idle_notifier_v1",
    "ext_session_lock_manager_v1",
    "ext_transient_seat_manager_v1",
    "org_kde_kwin_server_decoration_manager",
    "wl_data_device_manager",
    "wl_output",
    "wl_subcompositor",
    "wp_alpha_modifier_v1",
    "wp_content_type_manager_v1",
    "wp_cursor_shape_manager_v1",
    "wp_fractional_scale_manager_v1",
    "wp_presentation",
    "wp_single_pixel_buffer_manager_v1",
    "wp_tearing_control_manager_v1",
    "wp_viewporter",
    "xdg_activation_v1",
    "zwlr_export_dmabuf_manager_v1",
    "zwlr_foreign_toplevel_manager_v1",
    "zwlr_gamma_control_manager_v1",
    "zwlr_output_manager_v1",
    "zwlr_output_power_manager_v1",
    "zwlr_virtual_pointer_manager_v1",
    "zwp_idle_inhibit_manager_v1",
    "zwp_input_method_manager_v2",
    "zwp_keyboard_shortcuts_inhibit_manager_v1",
    "zwp_pointer_constraints_v1",
    "zwp_pointer_gestures_v1",
    "zwp_primary_selection_device_manager_v1",
    "zwp_relative_pointer_manager_v1",
    "zwp_tablet_manager_v2",
    "zwp_text_input_manager_v3",
    "zwp_virtual_keyboard_manager_v1",
    "zxdg_decoration_manager_v1",
    "zxdg_exporter_v1",
    "zxdg_exporter_v2",
    "zxdg_importer_v1",
    "zxdg_importer_v2",
    "zxdg_output_manager_v1",
}
SEVERAL = frozenset({"wl_output", "wl_seat"})  # there may be more than one of it, or none
DMABUF = "zwp_linux_dmabuf_v1"
NAMES_MAX = 3  # in one reason


def fault(offered: Mapping[int, str]) -> str:
    """Return what is wrong with a registry (number -> interface), or ""."""
    names = list(offered.values())
    if DMABUF in names:
        return (
            f"it offers {DMABUF}: a persona's own buffer could be on the screen while the persona is frozen"
        )
    foreign = sorted(set(names) - ALLOWED)
    if foreign:
        return f"it offers what is not allowed: {_some(foreign)}"
    twice = sorted({name for name in names if names.count(name) > 1} - SEVERAL)
    if twice:
        return f"it offers twice: {_some(twice)}"
    missing = sorted(ALLOWED - set(names) - SEVERAL)
    return f"it does not offer {_some(missing)}" if missing else ""


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
