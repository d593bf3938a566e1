"""A draft as a checkpoint, and back: nothing is lost, and only what has changed is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import anyio.to_thread
import attrs

from talkgen.draft import Box, Draft, Person
from talkgen.errors import FileMissing
from talkgen.media import Encoded, FileRef, Image, Speech, Text, Video
from talkgen.protocols import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from talkgen._types import JSON
    from talkgen.media import Tier
    from talkgen.protocols import NewFile, Operation, StagedFiles

    Read: TypeAlias = Callable[[FileRef], Awaitable[bytes]]

__all__ = ["UPLOAD", "DraftFiles", "collected", "restored"]

UPLOAD = "upload"  # the checkpoint before the first stage

PICTURES = ("image", "portrait")


class DraftFiles:
    """One attempt's staged files, which knows what of the draft is in which of them.

    Stages see it as their `StagedFiles`. A picture that a stage has kept as PNG itself is not
    written again for the checkpoint.
    """

    def __init__(self, files: StagedFiles) -> None:
        """Use an attempt's transaction."""
        self._files = files
        self._places: WeakKeyDictionary[Image | Speech, FileRef] = WeakKeyDictionary()
        # Since the last checkpoint; the bytes, so that what is the same need not be written.
        self._fresh: dict[str, tuple[bytes | Path, FileRef]] = {}

    async def put(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        """Keep a file; see `StagedFiles`."""
        return (await self.put_all((tier, suffix, data)))[0]

    async def put_all(self, *files: NewFile) -> tuple[FileRef, ...]:
        """Keep files; see `StagedFiles`."""
        kept = await self._files.put_all(*files)
        for (_, _, data), file in zip(files, kept, strict=True):
            self._fresh[f"{file.tier}/{file.name}"] = data, file
        return kept

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a staged file; see `StagedFiles`."""
        return await self._files.get(file)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A local folder; see `StagedFiles`."""
        return self._files.scratch()

    async def put_originals(self, draft: Draft) -> None:
        """Keep the files that the caller gave, for people and for a later attempt."""
        given = {"original": draft.image, "audio": draft.speech}
        media = {one: name for name, one in given.items() if isinstance(one, (Image, Speech))}
        files = await _encoded(media, _original)
        await self.put_all(
            *(("uploads", f"{media[one]}.{file.type}", file.data) for one, file in files.items())
        )

    async def checkpoint(self, number: int, draft: Draft, **ending: JSON) -> Checkpoint:
        """Keep a draft.

        Args:
            number: Of the stage after which this is the draft, from 1 on; 0 before the first.
            draft: What the stage gave.
            **ending: How the stage ended.
        """
        media = _media(draft)
        await self._keep({value: f"{number}-{field}" for field, value in reversed(media.items())})
        files = {field: self._places[value] for field, value in media.items()}
        if draft.video is not None:
            files["video"] = draft.video.file
        own = {name: file for name, (_, file) in self._fresh.items()}
        self._fresh.clear()
        return Checkpoint({**_facts(draft), **ending}, {**own, **files})

    async def restore(self, task_id: str, checkpoint: Checkpoint) -> Draft:
        """The draft that was kept.

        Raises:
            FileMissing: A file of it is gone, or was replaced.
        """
        draft = await restored(task_id, checkpoint, self.get)
        for field in (*PICTURES, "speech"):
            if isinstance(value := getattr(draft, field), (Image, Speech)):
                self._places[value] = checkpoint.files[field]
        return draft

    async def _keep(self, names: Mapping[Image | Speech, str]) -> None:
        """Give each a place: a file that holds just this, or else one of this name."""
        if new := names.keys() - self._places.keys():
            files = await _encoded(new, _lossless)
            for value, file in files.items():
                for data, held in self._fresh.values():
                    if data == file.data:
                        self._places[value] = held
            rest = [value for value in files if value not in self._places]
            kept = await self.put_all(
                *(("temp", f"{names[one]}.{files[one].type}", files[one].data) for one in rest)
            )
            self._places.update(zip(rest, kept, strict=True))


async def restored(
    task_id: str, checkpoint: Checkpoint, read: Read, *, partly: bool = False
) -> Draft:
    """The draft that a checkpoint holds.

    Args:
        task_id: Its task.
        checkpoint: From `DraftFiles.checkpoint`.
        read: Reads a file.
        partly: Leave pictures and sound out whose file is gone: they are None.

    Raises:
        FileMissing: A file is gone.
    """
    fields, files = checkpoint.fields, checkpoint.files
    opened: dict[FileRef | None, Any] = {None: None}
    for field in (*PICTURES, "speech"):
        file = files.get(field)
        if file not in opened:
            opened[file] = await _opened(field, files[field], fields, read, partly=partly)
    persons = _persons(fields["persons"])
    return Draft(
        task_id=task_id,
        image=opened[files.get("image")],
        portrait=opened[files.get("portrait")],
        portrait_box=Box(*fields["portrait_box"]),
        speech=Text(**fields["text"]) if fields["text"] else opened[files.get("speech")],
        persons=persons,
        person=_selected(fields["person"], persons),
        video=Video(file=files["video"], **_video(fields["video"])) if fields["video"] else None,
        metadata=dict(fields["metadata"]),
    )


def collected(operations: Iterable[Operation]) -> list[FileRef]:
    """The files that outside actions have brought, whether a checkpoint names them yet or not."""
    return [
        FileRef(**operation.facts["file"])
        for operation in operations
        if operation.settled == "collected" and "file" in operation.facts
    ]


async def _opened(field: str, file: FileRef, fields: JSON, read: Read, *, partly: bool) -> Any:
    try:
        data = await read(file)
    except FileMissing:
        if partly:
            return None
        raise
    encoded = Encoded(data, file.name.rpartition(".")[2])
    if field == "speech":
        return await anyio.to_thread.run_sync(Speech.restored, encoded, fields["sample_rate"])
    return await anyio.to_thread.run_sync(Image.restored, encoded)


def _media(draft: Draft) -> dict[str, Image | Speech]:
    """The pictures and the sound of a draft, by field."""
    fields = {field: getattr(draft, field) for field in (*PICTURES, "speech")}
    return {field: one for field, one in fields.items() if isinstance(one, (Image, Speech))}


async def _encoded(
    values: Iterable[Image | Speech], encode: Callable[[Image | Speech], Encoded]
) -> dict[Image | Speech, Encoded]:
    """The file of each, encoded in a thread where that is left to do."""
    files = {}
    for one in values:
        file = one.encoded
        files[one] = await anyio.to_thread.run_sync(encode, one) if file is None else file
    return files


def _original(one: Image | Speech) -> Encoded:
    return one.original()


def _lossless(one: Image | Speech) -> Encoded:
    return one.original() if isinstance(one, Image) else one.lossless()


# --- what is JSON ------------------------------------------------------------------------------


def _facts(draft: Draft) -> dict[str, JSON]:
    speech, persons, video = draft.speech, draft.persons, draft.video
    return {
        "portrait_box": [int(edge) for edge in draft.portrait_box],
        "text": attrs.asdict(speech) if isinstance(speech, Text) else None,
        "sample_rate": speech.sample_rate if isinstance(speech, Speech) else None,
        "persons": None if persons is None else [person.lossless() for person in persons],
        "person": _selection(draft.person, persons or ()),
        "video": video and {"duration": video.duration, "fps": video.fps, "size": video.size},
        "metadata": draft.metadata,
    }


def _selection(person: Person | None, among: tuple[Person, ...]) -> JSON:
    """The place of the very person among all, or else all that is known of them."""
    for index, other in enumerate(among):
        if other is person:
            return index
    return person and person.lossless()


def _selected(chosen: JSON, among: tuple[Person, ...] | None) -> Person | None:
    if isinstance(chosen, int):
        return among[chosen] if among else None
    return Person.restored(chosen) if chosen else None


def _persons(written: JSON) -> tuple[Person, ...] | None:
    return None if written is None else tuple(map(Person.restored, written))


def _video(written: JSON) -> dict[str, Any]:
    return {**written, "size": tuple(written["size"])}
