import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ArgsDef } from 'citty';
import { purposes } from '../comm/communicator.ts';
import { SmoeError } from '../errors.ts';
import { MeasuredTrace } from '../timeline/measured-trace.ts';
import { firstWaitPhase, phaseNames } from '../timeline/phases.ts';
import type { RankTimeline } from '../timeline/rank-timeline.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';

/** Steps recorded of a run, for files of a size that opens. */
export const timelineSteps = 64;

export const timelineArgs: ArgsDef = {
  timeline: {
    type: 'string',
    valueHint: 'FILE',
    description: `What every rank did when, first ${timelineSteps} steps: .json for Perfetto, .txt to read; prints a summary`,
  },
};

export interface TimelineRun {
  name: string;
  ranks: RankTimeline[];
}

/** --timeline, refused before any work when it cannot be written. */
export function readTimelinePath(flags: Flags): string | undefined {
  const path = flags.optional('timeline');
  if (path === undefined) return undefined;
  if (!/\.(json|txt)$/.test(path))
    throw usageError('USAGE_BAD_VALUE', `--timeline: ${path} ends neither in .json nor in .txt`, {
      hint: 'name it .json for Perfetto or .txt to read',
    });
  if (!existsSync(dirname(path)))
    throw usageError('USAGE_BAD_VALUE', `--timeline: there is no folder ${dirname(path)}`, {
      hint: 'make it, or name another',
    });
  return path;
}

export function writeTimeline(path: string, runs: TimelineRun[]): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, path.endsWith('.txt') ? timelineText(runs) : timelineTrace(runs));
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new SmoeError('OUTPUT_WRITE', `${path}: cannot write: ${(cause as Error).message}`, { cause });
  }
}

function timelineTrace(runs: TimelineRun[]): string {
  const trace = new MeasuredTrace();
  for (const { name, ranks } of runs) trace.addRun(name, ranks);
  return trace.toJson();
}

/** A line per phase or collective, in order of time within a rank: milliseconds since the run began, how long, what, bytes. */
function timelineText(runs: TimelineRun[]): string {
  const lines: string[] = [];
  for (const { name, ranks } of runs) {
    ranks.forEach((timeline, rank) => {
      lines.push(`${name}, rank ${rank}`, '     start    length  step  layer  half  what');
      for (const { line } of eventsOf(timeline).sort((a, b) => a.start - b.start)) lines.push(line);
      lines.push('');
    });
  }
  return `${lines.join('\n')}\n`;
}

function eventsOf({ spans, exchanges }: RankTimeline): { start: number; line: string }[] {
  const event = (
    { start, end, step, layer, half }: Omit<RankTimeline['spans'], 'phase'>,
    i: number,
    what: string,
  ): { start: number; line: string } => {
    const cells = [
      start[i]!.toFixed(3).padStart(10),
      (end[i]! - start[i]!).toFixed(3).padStart(8),
      String(step[i]!).padStart(4),
      (layer[i]! < 0 ? '-' : String(layer[i]!)).padStart(5),
      (half[i] === 0 ? '-' : String(half[i]!)).padStart(4),
      what,
    ];
    return { start: start[i]!, line: cells.join('  ') };
  };
  return [
    ...Array.from(spans.phase, (phase, i) =>
      event(spans, i, phase >= firstWaitPhase ? phaseNames[phase]! : `compute ${phaseNames[phase]!}`),
    ),
    ...Array.from(exchanges.purpose, (purpose, i) =>
      event(
        exchanges,
        i,
        `in flight: ${purposes[purpose]!}, ${exchanges.sent[i]!} bytes sent, ${exchanges.received[i]!} received`,
      ),
    ),
  ];
}
