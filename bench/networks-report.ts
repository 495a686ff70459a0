/**
 * Reports what `node dist/bench/networks.js` measured: `node dist/bench/networks-report.js [--write] [--predict] [--results FILE]
 * [--plans DIR]`. Prints the bars, met or missed by how much, and all tables. --predict asks the simulator first and keeps its answers in
 * the file of results; --write fills docs/networks.md and draws its figures.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { latencyFigure, machinesFigure, predictionFigure } from './networks/figures.ts';
import { predictSteps } from './networks/predict.ts';
import { readResults, writeResults, type Results } from './networks/results.ts';
import { bars } from './networks/summary.ts';
import { agreementTable, barTable, byteShareTable, byteTable, latencyTables, linkTable } from './networks/tables.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values: flags } = parseArgs({
  options: {
    write: { type: 'boolean' },
    predict: { type: 'boolean' },
    results: { type: 'string', default: join(root, 'bench/results/networks.json') },
    plans: { type: 'string', default: join(tmpdir(), 'speculative-moe-networks') },
  },
});

function writeText(path: string, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}

/** Text between the two markers of a name is replaced. */
function filled(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- networks:${name} -->`, `<!-- /networks:${name} -->`];
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from === -1 || to < from) throw new Error(`docs/networks.md has no place for ${name}: ${begin} ... ${end}`);
  return `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`;
}

function sections(results: Results): Record<string, string> {
  const { machine, cells } = results;
  const repeats = Math.min(...cells.map((cell) => cell.repeats));
  const notMeasured = 'Not measured yet.';
  return {
    facts: `${machine}; ${cells.length} cells of at least ${repeats} interleaved rounds.`,
    bars: barTable(bars(results)),
    links: results.networks.length === 0 ? notMeasured : linkTable(results.networks),
    bytes: byteTable(results),
    shares: byteShareTable(results),
    memory: latencyTables(results, 'memory') || notMeasured,
    shaped: latencyTables(results, 'testbed') || notMeasured,
    agreement: agreementTable(results) ?? notMeasured,
  };
}

const results = readResults(flags.results);
if (results === undefined) throw new Error(`${flags.results}: no such file; node dist/bench/networks.js makes it`);
if (flags.predict === true) {
  results.predictedStepMs = await predictSteps(results, flags.plans);
  writeResults(flags.results, results);
}
const texts = sections(results);
for (const [name, text] of Object.entries(texts)) console.log(`## ${name}\n\n${text}\n`);
if (flags.write === true) {
  const path = join(root, 'docs/networks.md');
  const page = Object.entries(texts).reduce(
    (text, [name, section]) => filled(text, name, section),
    readFileSync(path, 'utf8'),
  );
  writeText(path, page);
  const figures = {
    latency: latencyFigure(results),
    machines: machinesFigure(results),
    prediction: predictionFigure(results),
  };
  for (const [name, figure] of Object.entries(figures)) {
    if (figure !== undefined) writeText(join(root, `docs/figures/networks-${name}.svg`), figure);
  }
}
