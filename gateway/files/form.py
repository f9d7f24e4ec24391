"""A form with one file (multipart/form-data, RFC 7578), read as it comes: the file goes to disk piece by piece."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import InvalidParameter, InvalidRequest, UnsupportedMediaType
from gateway.errors.wording import show
from gateway.protocol.operation import FORM

FILE: Final = "file"  # its field
FIELDS_MAX: Final = 16
FIELD_BYTES_MAX: Final = 4096


class Form:
    """What a form held: its fields, and its file's name and size, where there was one."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0


class FormReader:
    """Raises UnsupportedMediaType unless the content type is that of a form."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != FORM.encode() or not boundary:
            raise UnsupportedMediaType(f'The body must be a form ({FORM}) with a `file`; got "{content_type[:80]}".')
        self.form = Form()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._name = ""
        self._in_file = False
        self._field = bytearray()
        self._pieces: list[bytes] = []
        self._ended = False

    async def read(self, pieces: AsyncIterator[bytes], path: Path) -> Form:
        """Write the file to `path`. Raises InvalidRequest, InvalidParameter, and what `pieces` raises."""
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in pieces:
                self._feed(piece)
                await self._write(file)
        if not self._ended:
            raise InvalidRequest("The form is cut off.")
        return self.form

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise InvalidRequest(f"The form can't be read: {error}.") from None

    async def _write(self, file: IO[bytes]) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self.form.size += len(data)
            await asyncio.to_thread(file.write, data)

    def _begin(self) -> None:
        self._disposition = b""
        self._field.clear()

    def _header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._in_file = b"filename" in options
        if not self._in_file:
            if len(self.form.fields) == FIELDS_MAX:
                raise InvalidRequest(f"The form has more than {FIELDS_MAX} fields.")
            return
        if self._name != FILE:
            raise InvalidParameter(f"The file must be sent as `{FILE}`; got {show(self._name)}.", param=FILE)
        if self.form.filename is not None:
            raise InvalidRequest("The form has more than one file; send one at a time.", param=FILE)
        self.form.filename = options[b"filename"].decode(errors="replace") or FILE

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
        elif len(self._field) + end - start > FIELD_BYTES_MAX:
            raise InvalidRequest(f"A field of the form is longer than {FIELD_BYTES_MAX} bytes.")
        else:
            self._field += data[start:end]

    def _part_end(self) -> None:
        if not self._in_file:
            self.form.fields[self._name] = self._field.decode(errors="replace")

    def _end(self) -> None:
        self._ended = True
