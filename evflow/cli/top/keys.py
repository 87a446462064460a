"""What keys mean in `evflow top`: pure."""

from dataclasses import replace

from evflow.cli.top.overview import ORDERS, Wish

_ENTER = ("\r", "\n")
_ERASE = ("\x7f", "\b")
_ESCAPE = "\x1b"
_MOST_CHARS = 60


def after(wish: Wish, key: str) -> Wish | None:
    """What the user wants after a key; None for the end."""
    if wish.typing:
        return _typed(wish, key)
    if key in ("q", "Q"):
        return None
    if key in ("s", "S"):
        return replace(wish, order=ORDERS[(ORDERS.index(wish.order) + 1) % len(ORDERS)])
    if key in ("/", "f"):
        return replace(wish, typing=True)
    return replace(wish, flow="") if key == _ESCAPE else wish


def _typed(wish: Wish, key: str) -> Wish:
    if key in _ENTER:
        return replace(wish, typing=False)
    if key == _ESCAPE:
        return replace(wish, typing=False, flow="")
    if key in _ERASE:
        return replace(wish, flow=wish.flow[:-1])
    return replace(wish, flow=(wish.flow + key)[:_MOST_CHARS]) if key.isprintable() else wish
