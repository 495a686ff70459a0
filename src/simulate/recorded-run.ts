import type { Layout, RunReport } from '../engine/api.ts';
import { SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { SimulatedStep } from './steps.ts';

/** A real run as the simulator sees it: its trace, its steps, and where each token lived. */
export interface RecordedRun {
  trace: RoutingTrace;
  steps: SimulatedStep[];
  /** [rows of the trace][L] rank each token lived on. */
  homes: Uint8Array;
}

/** From the report of a run with `recordRouting`, without overlap: which half a token was in is not recorded. */
export function recordedRun(report: RunReport, layout: Layout): RecordedRun {
  const { trace, routing, firstRecordRow, outputs } = report;
  if (trace === undefined || routing === undefined) {
    throw new SmoeError('SIMULATE_NO_RECORD', 'the run kept no routing record', {
      hint: 'run it with recordRouting: true',
    });
  }
  const { layers } = trace.model;
  const { dataParallel, tensorParallel } = layout;
  const homes = new Uint8Array(trace.length * layers);
  const groups = report.steps.map(() => Array.from({ length: dataParallel }, (): number[] => []));
  const sampled = report.steps.map(() => new Int32Array(dataParallel));
  const decoded = report.steps.map(() => 0);
  for (let row = 0; row < trace.length; row++) {
    const request = trace.request[row]!;
    const source = firstRecordRow[request]! + trace.position[row]!;
    homes.set(routing.homes.subarray(source * layers, (source + 1) * layers), row * layers);
    const group = Math.floor(homes[row * layers]! / tensorParallel);
    const step = routing.steps[source]!;
    groups[step]![group]!.push(row);
    decoded[step]! += trace.phase[row]!;
    const isLastKnown = row + 1 === trace.length || trace.request[row + 1] !== request || trace.phase[row + 1] === 1;
    if (isLastKnown && outputs[request]!.tokens.length > 0) sampled[step]![group]!++;
  }
  const steps = groups.map((rowsOfGroup, step): SimulatedStep => {
    const groupTokens = Int32Array.from(rowsOfGroup, (rows) => rows.length);
    const rows = Int32Array.from(rowsOfGroup.flat());
    return { rows, groupTokens, sampled: sampled[step]!, decodeTokens: decoded[step]! };
  });
  return { trace, steps, homes };
}
