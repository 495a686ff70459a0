import { type Purpose, purposes } from '../comm/communicator.ts';
import type { Layout } from '../engine/api.ts';
import type { Ownership } from '../schedule/ownership.ts';
import { type Exchange, layerExchangeNames } from './exchange.ts';
import { LayerRouting } from './layer-routing.ts';
import type { RecordedRun } from './recorded-run.ts';
import { type SimulatedScheduleName, Traffic } from './traffic.ts';

export interface TrafficTotals {
  bytes: Record<Purpose, number>;
  messages: Record<Purpose, number>;
}

/** What a recorded run must have sent, per step and in all; the activity exchange that ends the run is only in `all`. */
export interface RunTraffic {
  steps: TrafficTotals[];
  all: TrafficTotals;
}

export function emptyTotals(): TrafficTotals {
  const zero = (): Record<Purpose, number> => ({ attention: 0, dispatch: 0, combine: 0, control: 0 });
  return { bytes: zero(), messages: zero() };
}

export function addExchange(totals: TrafficTotals, exchange: Exchange): void {
  for (let pair = 0; pair < exchange.bytes.length; pair++) {
    totals.bytes[exchange.purpose] += exchange.bytes[pair]!;
    totals.messages[exchange.purpose] += exchange.messages[pair]!;
  }
}

/**
 * Traffic of a run with greedy sampling, computed from its record.
 *
 * @param rowBytes bytes of a hidden row
 * @param ridingBytes what each row brings along for a layer's slices
 * @param oneShotTokens steps of at most so many tokens went one-shot
 */
export function recordedTraffic(
  run: RecordedRun,
  schedule: SimulatedScheduleName,
  layout: Layout,
  ownership: Ownership,
  rowBytes: number,
  ridingBytes: (layer: number) => number = () => 0,
  oneShotTokens: number = 0,
): RunTraffic {
  const { layers } = run.trace.model;
  const traffic = new Traffic(schedule, layout, ownership, rowBytes);
  const routing = new LayerRouting(run.trace, ownership);
  const steps = run.steps.map((step) => {
    const totals = emptyTotals();
    const oneShot = step.rows.length <= oneShotTokens;
    traffic.countStep(step.sampled);
    addExchange(totals, traffic.activity);
    addExchange(totals, traffic.sampling);
    for (let layer = 0; layer < layers; layer++) {
      routing.count(
        layer,
        step.rows,
        Int32Array.from(step.rows, (row) => run.homes[row * layers + layer]!),
        !oneShot,
      );
      traffic.countLayer(step.groupTokens, routing, layer + 1 < layers ? ridingBytes(layer + 1) : 0, oneShot);
      for (const name of layerExchangeNames) addExchange(totals, traffic.layer[name]);
    }
    return totals;
  });
  const all = emptyTotals();
  for (const { bytes, messages } of steps) {
    for (const purpose of purposes) {
      all.bytes[purpose] += bytes[purpose];
      all.messages[purpose] += messages[purpose];
    }
  }
  traffic.countStep(new Int32Array(layout.dataParallel));
  addExchange(all, traffic.activity);
  return { steps, all };
}
