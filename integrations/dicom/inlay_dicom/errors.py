"""The one error of this package: what is wrong with a DICOM file, and where; never what stands there."""


class InvalidDicom(ValueError):
    """A file cannot be used.

    `code` is one of not-dicom, truncated, too-large, no-pixels, bad-tag, unsupported, undecodable, for files of a
    folder refused, replaced, gone, and for received ones mismatch. `place` is the attribute as "(gggg,eeee) Keyword"
    where one is to blame. Neither they nor the message hold a value of the file, so that all may be logged.
    """

    def __init__(self, code: str, message: str, place: str | None = None) -> None:
        super().__init__(message if place is None else f"{place}: {message}")
        self.code = code
        self.message = message
        self.place = place
