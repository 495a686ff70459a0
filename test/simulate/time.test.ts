import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Exchange } from '../../src/simulate/exchange.ts';
import { LinkClock } from '../../src/simulate/link-clock.ts';
import { simulate } from '../../src/simulate/simulate.ts';
import type { Segment } from '../../src/simulate/step-timer.ts';
import { simulatedScheduleNames } from '../../src/simulate/traffic.ts';
import { smallCluster, smallPlan, smallShape, smallSimulation, smallTrace } from './small.ts';

const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.max(1e-6, Math.abs(expected)), `${actual} is not ${expected}`);

test('an exchange takes as long as its slowest link end: latency once, messages and bytes one after another', () => {
  const clock = new LinkClock(smallCluster(), 4);
  const exchange = new Exchange('dispatch', 4);
  assert.deepEqual(clock.time(exchange), { seconds: 0, byteSeconds: 0, evenByteSeconds: 0, link: -1 });
  exchange.send(0, 1, 1e6);
  let time = clock.time(exchange);
  close(time.seconds, 2e-6 + 0.5e-6 + 1e6 / 1e9);
  assert.equal(clock.ends[time.link]!.name, 'device 0 inside node 0, out');
  // Both devices of node 0 share its way out.
  exchange.send(0, 2, 1e6);
  exchange.send(1, 3, 2e6);
  time = clock.time(exchange);
  close(time.seconds, 20e-6 + 2 * 1e-6 + 3e6 / 1e8);
  close(time.byteSeconds, 3e6 / 1e8);
  // Two ways out and two ways in carry 3 MB in and 3 MB out.
  close(time.evenByteSeconds, 6e6 / 4e8);
  assert.equal(clock.ends[time.link]!.name, 'node 0 to the network, out');
  assert.deepEqual(clock.classBytes, { insideNode: 2e6, betweenNodes: 3e6 });
  assert.deepEqual(clock.classMessages, { insideNode: 2, betweenNodes: 2 });
  exchange.rounds = 2;
  close(clock.time(exchange).seconds, time.seconds + 20e-6);
});

test('where whole exchanges were measured, their times hold: between sizes in proportion, each round by itself', () => {
  const measured = [
    [1000, 50],
    [11_000, 150],
    [21_000, 350],
  ];
  const clock = new LinkClock(smallCluster({ between: { gigabitsPerSecond: 0.8, latencyUs: 20, measured } }), 4);
  const seconds = (bytes: number, rounds: number = 1): number => {
    const exchange = new Exchange('dispatch', 4);
    exchange.rounds = rounds;
    exchange.send(0, 2, bytes);
    return clock.time(exchange).seconds;
  };
  close(seconds(1), 50e-6);
  close(seconds(6000), 100e-6);
  close(seconds(11_000), 150e-6);
  close(seconds(16_000), 250e-6);
  close(seconds(31_000), 550e-6);
  close(seconds(12_000, 2), 2 * 100e-6);
});

test('devices with ports of their own do not wait for each other', () => {
  const own = { gigabitsPerSecond: 0.8, latencyUs: 20, messageUs: 1, sharedBy: 'device' };
  const clock = new LinkClock(smallCluster({ between: own }), 4);
  const exchange = new Exchange('combine', 4);
  exchange.send(0, 2, 1e6);
  exchange.send(1, 3, 2e6);
  close(clock.time(exchange).seconds, 20e-6 + 1e-6 + 2e6 / 1e8);
});

test('a slower node holds up what it takes part in', () => {
  const slow = { gigabitsPerSecond: 0.08, latencyUs: 100 };
  const nodes = [{ devices: 2 }, { devices: 2, between: slow }];
  const exchange = new Exchange('combine', 4);
  exchange.send(0, 2, 1e6);
  const clock = new LinkClock(smallCluster({ nodes }), 4);
  const time = clock.time(exchange);
  close(time.seconds, 100e-6 + 1e6 / 1e7);
  assert.equal(clock.ends[time.link]!.name, 'node 1 to the network, in');
});

test('a step is the sum of its pieces; layers, steps and requests add up', () => {
  for (const schedule of simulatedScheduleNames) {
    const segments: [Segment, number][] = [];
    const [result] = simulate(
      smallSimulation({ schedule, onSegment: (segment, step) => segments.push([segment, step]) }),
    );
    close(result!.totalMs, result!.computeMs + result!.communicationMs);
    let now = 0;
    for (const [{ start, seconds, half }] of segments) {
      close(start, now);
      assert.equal(half, 0);
      now = start + seconds;
    }
    close(now * 1000, result!.totalMs);
    const stepped = result!.stepTimes.reduce((sum, step) => sum + step.milliseconds, 0);
    close(stepped, result!.totalMs);
    assert.equal(result!.stepTimes.length, result!.steps);
    const ends = new Set([...segments].map(([{ link }]) => link).filter((link) => link !== undefined));
    for (const { busiestLink, busiestRank } of [...result!.layers, ...result!.stepTimes]) {
      assert.ok(busiestLink !== null && ends.has(busiestLink) && busiestRank >= 0 && busiestRank < 4);
    }
    const layered = result!.layers.reduce((sum, layer) => sum + layer.milliseconds, 0);
    assert.ok(layered < result!.totalMs && layered > 0.5 * result!.totalMs);
    assert.ok(result!.ttftMs.p50 < result!.e2eMs.p50 && result!.e2eMs.p99 <= result!.totalMs * (1 + 1e-9));
    const { insideNode, betweenNodes } = result!.bytesByLink;
    assert.equal(insideNode + betweenNodes, result!.bytes.total);
    const { insideNode: inside, betweenNodes: between } = result!.messagesByLink;
    assert.equal(inside + between, result!.messages);
  }
});

test('a layer in two halves: one computes while the other communicates, never both at once, in order', () => {
  const segments: Segment[] = [];
  const [plain] = simulate(smallSimulation());
  const [halves] = simulate(smallSimulation({ overlap: true, onSegment: (segment) => segments.push(segment) }));
  assert.ok(halves!.overlappedSteps > 0);
  assert.ok(halves!.totalMs < halves!.computeMs + halves!.communicationMs);
  assert.ok(halves!.messages > plain!.messages);
  for (const kind of ['compute', 'exchange'] as const) {
    const ordered = segments.filter((segment) => segment.kind === kind).sort((a, b) => a.start - b.start);
    for (let i = 1; i < ordered.length; i++) {
      assert.ok(ordered[i]!.start >= ordered[i - 1]!.start + ordered[i - 1]!.seconds - 1e-12, kind);
    }
  }
});

test('more of any link, and a faster device, never make a replay slower', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...simulatedScheduleNames),
      fc.double({ min: 1.01, max: 50, noNaN: true }),
      fc.boolean(),
      (schedule, factor, overlap) => {
        const faster = smallCluster({
          between: { gigabitsPerSecond: 0.8 * factor, latencyUs: 20 / factor, messageUs: 1 },
        });
        const device = { gigaflops: 10 * factor, memoryGBps: 10 * factor, memoryGB: 1 };
        const clusters = [smallCluster(), faster, smallCluster({ device })];
        const trace = smallTrace(3, 15);
        const [base, link, compute] = simulate(smallSimulation({ trace, schedule, overlap, clusters }));
        assert.ok(overlap || (link!.totalMs < base!.totalMs && compute!.totalMs < base!.totalMs));
        assert.deepEqual(link!.bytes, base!.bytes);
      },
    ),
    { numRuns: 25 },
  );
});

test('an oracle sends no more than contiguous slices; gathering everything ignores the plan', () => {
  const trace = smallTrace(30, 30);
  const layout = { dataParallel: 1, tensorParallel: 4 };
  const of = (change: Parameters<typeof smallSimulation>[0]): number => {
    const { bytes } = simulate(smallSimulation({ trace, layout, ...change }))[0]!;
    return bytes.dispatch + bytes.combine;
  };
  assert.ok(of({ schedule: 'speculative', predictor: 'oracle' }) < of({ schedule: 'dedup' }));
  // Compact rows shorten what rows take, of no other schedule's.
  const combined = (change: Parameters<typeof smallSimulation>[0]): number =>
    simulate(smallSimulation({ trace, layout, predictor: 'oracle', ...change }))[0]!.bytes.combine;
  assert.equal(combined({ schedule: 'speculative', compactShare: 0.75 }), 0.75 * combined({ schedule: 'speculative' }));
  assert.equal(combined({ schedule: 'dedup', compactShare: 0.75 }), combined({ schedule: 'dedup' }));
  const other = smallPlan(trace, 4);
  other.expertOwner.reverse();
  assert.equal(of({ schedule: 'gather-all' }), of({ schedule: 'gather-all', plan: other }));
  const rowBytes = smallShape.hiddenSize * smallShape.activationBytes;
  assert.equal(of({ schedule: 'gather-all' }), 2 * trace.length * smallShape.layers * 3 * rowBytes);
});
