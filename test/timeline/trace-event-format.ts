/**
 * The rules of the Trace Event Format ("JSON Object Format") for the two kinds of events written here, metadata and complete events,
 * and those of Perfetto's importer beyond them: ids that fit 32 bits, times that fit 64 bits of nanoseconds, slices of a track that
 * nest or follow each other, every track named before it is used.
 */
import assert from 'node:assert/strict';

const metadataArguments: Record<string, [string, string]> = {
  process_name: ['name', 'string'],
  process_sort_index: ['sort_index', 'number'],
  thread_name: ['name', 'string'],
  thread_sort_index: ['sort_index', 'number'],
};
/** Half a nanosecond, Perfetto's resolution, in microseconds. */
const tolerance = 0.0005;

/** Throws for the first rule broken; returns how many complete events there are on how many tracks. */
export function assertTraceEventFormat(text: string): { slices: number; tracks: number } {
  const file = JSON.parse(text) as Record<string, unknown>;
  assert.deepEqual(Object.keys(file).sort(), ['displayTimeUnit', 'traceEvents']);
  assert.ok(file.displayTimeUnit === 'ms' || file.displayTimeUnit === 'ns');
  const named = new Set<string>();
  const lastOf = new Map<string, { start: number; end: number }>();
  let slices = 0;
  for (const event of file.traceEvents as Record<string, unknown>[]) {
    const { name, ph, pid, tid, args } = event as { name: string; ph: string; pid: number; tid: number; args: object };
    const where = JSON.stringify(event).slice(0, 200);
    assert.ok(typeof name === 'string' && name !== '', where);
    for (const id of [pid, tid]) assert.ok(Number.isInteger(id) && id >= 0 && id < 2 ** 31, where);
    assert.ok(typeof args === 'object' && args !== null && !Array.isArray(args), where);
    if (ph === 'M') {
      const [key, type] = metadataArguments[name]!;
      assert.deepEqual(Object.keys(args), [key], where);
      assert.equal(typeof (args as Record<string, unknown>)[key], type, where);
      assert.deepEqual(Object.keys(event).sort(), ['args', 'name', 'ph', 'pid', 'tid'], where);
      const scope = name.startsWith('process') ? `${pid}` : `${pid}/${tid}`;
      assert.ok(!named.has(`${name} ${scope}`), `named twice: ${where}`);
      named.add(`${name} ${scope}`);
      continue;
    }
    assert.equal(ph, 'X', where);
    assert.deepEqual(Object.keys(event).sort(), ['args', 'cat', 'dur', 'name', 'ph', 'pid', 'tid', 'ts'], where);
    assert.equal(typeof event.cat, 'string', where);
    const { ts, dur } = event as { ts: number; dur: number };
    for (const time of [ts, dur]) assert.ok(Number.isFinite(time) && time >= 0 && time < 2 ** 63 / 1000, where);
    assert.ok(named.has(`process_name ${pid}`) && named.has(`thread_name ${pid}/${tid}`), `no name: ${where}`);
    const last = lastOf.get(`${pid}/${tid}`);
    assert.ok(last === undefined || ts >= last.start - tolerance, `out of order: ${where}`);
    assert.ok(last === undefined || ts >= last.end - tolerance, `overlaps the one before: ${where}`);
    lastOf.set(`${pid}/${tid}`, { start: ts, end: ts + dur });
    slices++;
  }
  return { slices, tracks: lastOf.size };
}
