"""The envelope: the encrypted stored form of an object (design: section 4, docs/envelope-format.md).

Two calls do it all: :func:`new_sealer` for who writes, :func:`opener` for who reads. The parts below them:

=================  ==========================================================================
module             what it knows
=================  ==========================================================================
``keys``           the RSA keys of vantage6 organisations, and their fingerprints
``wrap``           the data key of one object, wrapped for one recipient (compact JWE)
``format``         the wire format: sizes, header, how one segment is sealed and opened
``seal``           one plaintext to one stored form, once
``open``           a stored form, read from its beginning or in pieces, to the plaintext
``reader``         a stored form in a store as a seekable file
=================  ==========================================================================
"""

from vantage6_largefile.envelope.format import SegmentPlan, plaintext_size_of
from vantage6_largefile.envelope.keys import (
    fingerprint,
    load_private_key,
    load_public_key,
    read_private_key,
    require_fingerprint,
)
from vantage6_largefile.envelope.open import SegmentOpener, open_stream
from vantage6_largefile.envelope.reader import Opener, SegmentedReader, opener
from vantage6_largefile.envelope.seal import Sealer, new_sealer, segment_chunks
from vantage6_largefile.envelope.wrap import unwrap_key, wrap_key

__all__ = [
    "Opener",
    "Sealer",
    "SegmentOpener",
    "SegmentPlan",
    "SegmentedReader",
    "fingerprint",
    "load_private_key",
    "load_public_key",
    "new_sealer",
    "open_stream",
    "opener",
    "plaintext_size_of",
    "read_private_key",
    "require_fingerprint",
    "segment_chunks",
    "unwrap_key",
    "wrap_key",
]
