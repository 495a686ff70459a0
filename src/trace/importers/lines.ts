import { createReadStream } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { badRecord, unreadable } from '../bad-record.ts';

export interface Line {
  text: string;
  /** From 1. */
  number: number;
}

/** A line longer than this is no record of any format here. */
const longestLine = 256 * 1024 * 1024;

/** The lines of a file that are not blank, in constant memory. */
export async function* readLines(path: string, longest: number = longestLine): AsyncGenerator<Line> {
  const decoder = new StringDecoder('utf8');
  let number = 0;
  let rest: string[] = [];
  let restLength = 0;
  const stream = createReadStream(path, { highWaterMark: 1 << 20 });
  try {
    for await (const chunk of stream) {
      let text = decoder.write(chunk as Buffer);
      if (number === 0 && restLength === 0 && text.startsWith('\uFEFF')) text = text.slice(1);
      let start = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
        rest.push(text.slice(start, end));
        const line = rest.join('');
        rest = [];
        restLength = 0;
        start = end + 1;
        number++;
        if (line.trim() !== '') yield { text: line, number };
      }
      rest.push(text.slice(start));
      restLength += text.length - start;
      if (restLength > longest)
        throw badRecord(`${path}, line ${number + 1}`, `longer than ${longest} characters`, 'is it a text file?');
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).syscall === undefined ? error : unreadable(path, error);
  } finally {
    stream.destroy();
  }
  const last = rest.join('') + decoder.end();
  if (last.trim() !== '') yield { text: last, number: number + 1 };
}
