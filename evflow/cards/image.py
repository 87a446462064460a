"""Pictures, which the page holds itself."""

from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, Self, cast

from evflow.cards.component import CardComponent, escape, problem

PER_POINT: Final = 2
"""Pixels of a figure for each one of the page: sharp on the screens of today and in print."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_KINDS: Final = ((_PNG, "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))
_SIGN: Final = 256
"""First bytes of a file among which an SVG says that it is one."""


class Image(CardComponent):
    """A picture.

    Args:
        src: Its bytes (PNG, JPEG, GIF, WebP, SVG), or a `data:` URL of them.
        label: What it shows: the line under it, and what a screen reader says.
        disable_updates: Of a live card: it is drawn once, and `update` changes nothing.
    """

    def __init__(self, src: bytes | str | None = None, label: str | None = None, disable_updates: bool = True) -> None:
        self._fixed = disable_updates
        self._why: str | BaseException = ""
        self._scale = 1
        self._take(src, label)

    @classmethod
    def from_matplotlib(cls, plot: Any, label: str | None = None, disable_updates: bool = True) -> Self:
        """The picture of a figure, or of what has one (axes, what seaborn gives).

        Args:
            plot: The figure.
            label: As for an image.
            disable_updates: As for an image.
        """
        return cls._made(lambda: _of_figure(plot), label, disable_updates, scale=PER_POINT)

    @classmethod
    def from_pil_image(cls, pilimage: Any, label: str | None = None, disable_updates: bool = True) -> Self:
        """A picture of Pillow.

        Args:
            pilimage: The picture.
            label: As for an image.
            disable_updates: As for an image.
        """
        return cls._made(lambda: _of_pillow(pilimage), label, disable_updates)

    @classmethod
    def _made(cls, draw: Callable[[], bytes], label: str | None, disable_updates: bool, scale: int = 1) -> Self:
        made = cls(None, label, disable_updates)
        made._scale = scale
        try:
            made._take(draw(), label)
        except Exception as error:  # noqa: BLE001 - of a library of the user's; the card says it
            made._why = error
        return made

    def update(self, image: Any = None, label: str | None = None) -> None:
        """Show another picture: bytes, a `data:` URL, a figure or a picture of Pillow."""
        if self._fixed:
            return
        try:
            if hasattr(image, "savefig") or hasattr(image, "get_figure"):
                image, self._scale = _of_figure(image), PER_POINT
            elif hasattr(image, "save"):
                image, self._scale = _of_pillow(image), 1
            self._take(image, label or self._label)
        except Exception as error:  # noqa: BLE001 - as above
            self._why = error

    def render(self) -> str:
        """See `CardComponent`."""
        if self._why:
            return problem("This picture cannot be shown.", self._why)
        if not self._url:
            return ""
        size = "" if self._size is None else f' width="{self._size[0] // self._scale}" height="{self._size[1] // self._scale}"'
        label = escape(self._label or "")
        caption = f"<figcaption>{label}</figcaption>" if label else ""
        return f'<figure><img src="{escape(self._url)}" alt="{label or "Picture without a label"}"{size}>{caption}</figure>'

    def _take(self, src: object, label: str | None) -> None:
        self._label = label
        self._url, self._size = "", None
        self._why = ""
        if isinstance(src, bytes | bytearray | memoryview):
            data = bytes(cast("bytes", src))
            kind = _kind(data)
            if kind is None:
                self._why = "Its bytes are not those of a PNG, JPEG, GIF, WebP or SVG."
                return
            self._url = f"data:image/{kind};base64,{b64encode(data).decode()}"
            self._size = _png_size(data)
        elif isinstance(src, str):
            if src.startswith("data:image/"):
                self._url = src
            else:
                self._why = "A card holds its pictures itself: give the bytes, not an address or the name of a file."
        elif src is not None:
            self._why = f"{type(src).__name__} is neither bytes nor a data: URL; `from_matplotlib` and `from_pil_image` take others."


def _kind(data: bytes) -> str | None:
    for begin, kind in _KINDS:
        if data.startswith(begin):
            return kind
    return "svg+xml" if b"<svg" in data[:_SIGN].lower() else None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(_PNG) or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _of_figure(plot: Any) -> bytes:
    figure: Any = plot if hasattr(plot, "savefig") else plot.get_figure()
    return _written(lambda file: figure.savefig(file, format="png", bbox_inches="tight", dpi=figure.dpi * PER_POINT))


def _of_pillow(picture: Any) -> bytes:
    return _written(lambda file: picture.save(file, format="PNG"))


def _written(write: Callable[[Any], object]) -> bytes:
    file = BytesIO()
    write(file)
    return file.getvalue()
