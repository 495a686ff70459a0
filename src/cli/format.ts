/** Bytes with three significant digits and a binary unit: 1.46 MiB. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? String(value) : significant(value)} ${units[unit]}`;
}

export function formatMilliseconds(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return '-';
  if (milliseconds >= 10_000) return `${significant(milliseconds / 1000)} s`;
  return `${significant(milliseconds)} ms`;
}

/** 0.463 -> 46.3 % */
export function formatShare(share: number): string {
  return Number.isFinite(share) ? `${(share * 100).toFixed(1).replace(/^-0\.0$/, '0.0')} %` : '-';
}

/** Change against a base, signed: -68.6 %. */
export function formatChange(value: number, base: number): string {
  if (!Number.isFinite(value) || !Number.isFinite(base) || base === 0) return '-';
  const percent = ((value - base) / base) * 100;
  const text = percent.toFixed(1);
  return `${percent > 0 && text !== '0.0' ? '+' : ''}${text === '-0.0' ? '0.0' : text} %`;
}

export function formatNumber(value: number, digits: number = 2): string {
  return Number.isFinite(value) ? value.toFixed(digits) : '-';
}

export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function significant(value: number): string {
  const magnitude = Math.abs(value);
  return value.toFixed(magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : 2);
}

/** Lines of at most so many columns, broken between words. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
