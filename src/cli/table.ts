export interface Column {
  title: string;
  /** Text to the left, figures to the right. */
  align: 'left' | 'right';
}

/** Plain columns two spaces apart, the title row styled; no line has trailing spaces. */
export function renderTable(
  columns: Column[],
  rows: string[][],
  style: (title: string) => string = (title) => title,
): string {
  const widths = columns.map(({ title }, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: string[]): string =>
    cells
      .map((cell, column) =>
        columns[column]!.align === 'left' ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      )
      .join('  ')
      .trimEnd();
  return [style(line(columns.map(({ title }) => title))), ...rows.map(line)].map((text) => `${text}\n`).join('');
}
