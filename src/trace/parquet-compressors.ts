import { type Compressors } from 'hyparquet';
import * as zlib from 'node:zlib';

type Decompress = (bytes: Uint8Array, options: { maxOutputLength: number }) => Buffer;

/** Codecs beyond those hyparquet brings itself (none, Snappy), bounded by the size that the page announces. */
export const parquetCompressors: Compressors = {
  GZIP: bounded(zlib.gunzipSync),
  BROTLI: bounded(zlib.brotliDecompressSync),
  ...zstandard(),
};

/** Node.js 22.15 and newer know Zstandard. */
function zstandard(): Compressors {
  const { zstdDecompressSync } = zlib as { zstdDecompressSync?: Decompress };
  return zstdDecompressSync === undefined ? {} : { ZSTD: bounded(zstdDecompressSync) };
}

function bounded(decompress: Decompress): (bytes: Uint8Array, length: number) => Uint8Array {
  return (bytes, length) => decompress(bytes, { maxOutputLength: Math.max(1, length) });
}
