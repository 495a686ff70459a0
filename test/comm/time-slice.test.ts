import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';

import { requestTimeSlice, shortenTimeSlice, timeSlice } from '../../src/comm/time-slice.ts';

const before = timeSlice();
const unknown = before === undefined ? 'this kernel does not tell slices' : false;

test('a thread has the slice it asks for, and no other thread has', { skip: unknown }, async () => {
  assert.equal(requestTimeSlice(200), true);
  assert.equal(timeSlice(), 200);
  const module = new URL(`../../src/comm/time-slice${import.meta.url.slice(-3)}`, import.meta.url).href;
  const ask = `import(${JSON.stringify(module)}).then(({ requestTimeSlice, timeSlice }) => {
    requestTimeSlice(400);
    require('node:worker_threads').parentPort.postMessage(timeSlice());
  });`;
  const worker = new Worker(ask, { eval: true });
  const theirs = await new Promise((resolve) => worker.once('message', resolve));
  await worker.terminate();
  assert.equal(theirs, 400);
  assert.equal(timeSlice(), 200);
  assert.equal(requestTimeSlice(before!), true);
});

test('SMOE_TIME_SLICE_US names another slice, or none', { skip: unknown }, () => {
  shortenTimeSlice('0');
  assert.equal(timeSlice(), before);
  shortenTimeSlice('500');
  assert.equal(timeSlice(), 500);
  shortenTimeSlice(undefined);
  assert.equal(timeSlice(), 100);
  requestTimeSlice(before!);
});
