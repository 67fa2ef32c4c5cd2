"""The child process that decodes one lossless JPEG frame with GDCM: request on stdin, stored values on stdout.

Run by path, never imported: on broken data GDCM throws through its own destructors and ends the process it runs in.
"""

import struct
import sys

# Rows, columns, samples, bits allocated, bits stored, signed, first-order prediction only; then the frame.
REQUEST = struct.Struct("<IIHHH??")


def main() -> None:
    """Decode what stdin holds. Any end but 0 means that the frame is broken; what is printed on the way is noise."""
    import gdcm

    data = sys.stdin.buffer.read()
    rows, columns, samples, allocated, stored, signed, first_order = REQUEST.unpack_from(data)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data[REQUEST.size :])
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kind(kind.RGB if samples == 3 else kind.MONOCHROME2))
    if samples == 3:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax
    image.SetTransferSyntax(syntax(syntax.JPEGLosslessProcess14_1 if first_order else syntax.JPEGLosslessProcess14))
    image.SetPixelFormat(gdcm.PixelFormat(samples, allocated, stored, stored - 1, int(signed)))
    pixels = image.GetBuffer()  # char* becomes str in Python, each byte a surrogate; None when it cannot be decoded.
    sys.stdout.buffer.write(pixels.encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main()
