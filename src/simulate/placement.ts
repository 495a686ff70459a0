import type { Plan } from '../plan/plan.ts';
import { RequestPlacer } from '../predict/placement.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { SimulatedScheduleName } from './traffic.ts';
import { requestRows } from './steps.ts';

/**
 * [requests] data-parallel rank of each request, as the engine chooses: by expert affinity of its prompt under `speculative`, else in
 * turn. In turn also where the trace lacks token ids or the plan their tables.
 */
export function placeRequests(
  trace: RoutingTrace,
  plan: Plan,
  schedule: SimulatedScheduleName,
  dataParallel: number,
): Int32Array {
  const requests = requestRows(trace);
  const known = plan.prediction !== undefined && !trace.token.includes(-1);
  if (schedule !== 'speculative' || dataParallel === 1 || !known)
    return Int32Array.from(requests, (_, i) => i % dataParallel);
  const placer = new RequestPlacer(plan, dataParallel);
  return Int32Array.from(requests, ({ firstRow, promptRows, rows }) =>
    placer.place(trace.token.subarray(firstRow, firstRow + (promptRows || rows))),
  );
}
