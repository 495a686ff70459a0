/** A figure: some panels under one title, as SVG text that reads well on light and dark pages. Knows nothing of what is drawn. */
export interface Panel {
  width: number;
  height: number;
  /** SVG elements with the panel's upper left corner at (0, 0). */
  body: string;
}

export interface FigureText {
  title: string;
  /** For those who cannot see it. */
  description: string;
}

const margin = 16;
const titleHeight = 40;

/** Series colours by index; more series start again. */
export const seriesCount = 4;

const light = {
  page: '#ffffff',
  ink: '#1f2430',
  soft: '#667085',
  line: '#d0d5dd',
  cell: '#1d4ed8',
  'series-0': '#1d4ed8',
  'series-1': '#c2410c',
  'series-2': '#047857',
  'series-3': '#7e22ce',
};
const dark: Record<keyof typeof light, string> = {
  page: '#12161d',
  ink: '#e6e8ee',
  soft: '#a3abba',
  line: '#3b4453',
  cell: '#7aa7ff',
  'series-0': '#7aa7ff',
  'series-1': '#fb923c',
  'series-2': '#34d399',
  'series-3': '#c084fc',
};

/** A colour of the page's scheme; programs that know no CSS variables (rsvg-convert, Inkscape) draw the light one. */
function paint(property: 'fill' | 'stroke', color: keyof typeof light): string {
  return `${property}: ${light[color]}; ${property}: var(--${color});`;
}

function variables(colors: typeof light): string {
  return Object.entries(colors)
    .map(([name, value]) => `--${name}: ${value};`)
    .join(' ');
}

const seriesStyle = Array.from({ length: seriesCount }, (_, i) => {
  const color = `series-${i}` as keyof typeof light;
  return `  .line-${i} { ${paint('stroke', color)} stroke-width: 2; fill: none; }\n  .fill-${i} { ${paint('fill', color)} }`;
}).join('\n');

const style = `
  svg { ${variables(light)} }
  @media (prefers-color-scheme: dark) { svg { ${variables(dark)} } }
  .page { ${paint('fill', 'page')} }
  text { font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; font-size: 12px; ${paint('fill', 'ink')} }
  .title { font-size: 16px; font-weight: 600; }
  .panel-title { font-size: 13px; font-weight: 600; }
  .soft { ${paint('fill', 'soft')} }
  .grid { ${paint('stroke', 'line')} stroke-width: 1; }
  .guide { ${paint('stroke', 'soft')} stroke-width: 1; stroke-dasharray: 4 4; fill: none; }
  .cell { ${paint('fill', 'cell')} }
${seriesStyle}
  .band { fill-opacity: 0.18; }
`;

/** Panels side by side while they fit into `width`, then in further rows. */
export function renderFigure({ title, description }: FigureText, panels: Panel[], width: number = 920): string {
  let x = margin;
  let y = margin + titleHeight;
  let rowHeight = 0;
  const placed = panels.map((panel) => {
    if (x > margin && x + panel.width > width - margin) {
      x = margin;
      y += rowHeight + margin;
      rowHeight = 0;
    }
    const text = element('g', { transform: `translate(${x} ${y})` }, panel.body);
    x += panel.width + margin;
    rowHeight = Math.max(rowHeight, panel.height);
    return text;
  });
  const height = y + rowHeight + margin;
  const body = [
    element('title', { id: 'figure-title' }, escapeText(title)),
    element('desc', { id: 'figure-description' }, escapeText(description)),
    `<style>${style}</style>`,
    element('rect', { class: 'page', width, height }),
    label(title, { x: margin, y: margin + 18, class: 'title' }),
    ...placed,
  ].join('\n');
  const attributes = {
    xmlns: 'http://www.w3.org/2000/svg',
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: 'img',
    'aria-labelledby': 'figure-title figure-description',
  };
  return `${element('svg', attributes, `\n${body}\n`)}\n`;
}

/** One element; numbers are rounded to hundredths. `content` is markup, not text. */
export function element(name: string, attributes: Record<string, string | number>, content?: string): string {
  const written = Object.entries(attributes)
    .map(([key, value]) => ` ${key}="${typeof value === 'number' ? formatCoordinate(value) : escapeText(value)}"`)
    .join('');
  return content === undefined ? `<${name}${written}/>` : `<${name}${written}>${content}</${name}>`;
}

export function label(text: string, attributes: Record<string, string | number>): string {
  return element('text', attributes, escapeText(text));
}

/** A path through points; a point that is not finite interrupts it. */
export function pathThrough(points: [number, number][]): string {
  let open = false;
  return points
    .flatMap(([x, y]) => {
      if (!Number.isFinite(x) || !Number.isFinite(y)) {
        open = false;
        return [];
      }
      const command = open ? 'L' : 'M';
      open = true;
      return [`${command}${formatCoordinate(x)} ${formatCoordinate(y)}`];
    })
    .join('');
}

function formatCoordinate(value: number): string {
  return String(Math.round(value * 100) / 100);
}

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
