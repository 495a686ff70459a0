import { badRecord } from '../bad-record.ts';
import type { Where } from '../trace-sink.ts';
import { integersFrom, type IntegerType } from './routed-experts.ts';

/** A NumPy array file of integers. */
export interface NumpyArray {
  shape: number[];
  values: Int32Array;
}

const magic = '\x93NUMPY';
/** Suffix of NumPy's dtype descriptor. */
const types: Readonly<Record<string, IntegerType>> = {
  u1: 'uint8',
  i1: 'int8',
  u2: 'uint16',
  i2: 'int16',
  i4: 'int32',
  u4: 'int32',
  i8: 'int64',
};

/** Whether the bytes begin like a .npy file. */
export function isNumpy(bytes: Buffer): boolean {
  return bytes.length >= 10 && bytes.toString('latin1', 0, 6) === magic;
}

/** Reads a little-endian, C-ordered integer array (numpy.lib.format, versions 1 to 3). */
export function readNumpy(where: Where, field: string, bytes: Buffer): NumpyArray {
  const bad = (problem: string): Error =>
    badRecord(where(), `${field}: ${problem}`, 'expected a NumPy array of integers');
  if (!isNumpy(bytes)) throw bad('no NumPy header');
  const major = bytes[6]!;
  const wide = major >= 2;
  if (major < 1 || major > 3 || (wide && bytes.length < 12)) throw bad(`NumPy format ${major}`);
  const start = wide ? 12 : 10;
  const headerLength = wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8);
  if (start + headerLength > bytes.length) throw bad('the NumPy header is cut off');
  const header = bytes.toString('latin1', start, start + headerLength);
  const descriptor = /'descr'\s*:\s*'([<>|=])([a-z]\d+)'/.exec(header);
  const type = descriptor === null ? undefined : types[descriptor[2]!];
  const shape = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (type === undefined || descriptor![1] === '>') throw bad(`NumPy type ${descriptor?.[0] ?? 'unknown'}`);
  if (shape === undefined || !/'fortran_order'\s*:\s*False/.test(header))
    throw bad('the NumPy header lacks a C-ordered shape');
  const dimensions = shape.split(',').flatMap((text) => (text.trim() === '' ? [] : [Number(text)]));
  const count = dimensions.reduce((product, size) => product * size, 1);
  const values = integersFrom(where, field, bytes.subarray(start + headerLength), type);
  if (values.length !== count) throw bad(`${values.length} values for shape (${shape})`);
  return { shape: dimensions, values };
}
