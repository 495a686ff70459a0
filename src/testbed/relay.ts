/**
 * Entry of the relay process: delays Ethernet frames between pairs of TAP devices, for kernels without netem. One thread, one
 * `ppoll` over every device; what a host sends waits in its DelayQueue, what it receives passes at once. Rates are not the relay's:
 * htb on the devices shapes them. Ends when a device is gone, so removing the namespaces ends it.
 *
 *   node relay.js JOB    JOB is a RelayJob as JSON
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { DelayQueue } from './delay-queue.ts';
import { LatenessHistogram } from './lateness.ts';
import { addressOf, errors, lastError, mapFile, NativeMemory, ppoll, prctl, read, schedule, write } from './libc.ts';
import { relayReadyLine, type RelayJob, type RelayLink } from './relay-protocol.ts';
import { encodeStatistics, statisticsBytes, type RelayStatistics } from './relay-statistics.ts';
import { largestTapFrame, openTap } from './tap.ts';

const setTimerSlack = 29;
const firstInFirstOut = 1;
const pollIn = 1;
/** Frames taken from one device before the others have their turn. */
const framesPerTurn = 64;
const statisticsEveryMs = 1000;
/** How much early a wake-up may be asked for, at most, and by how much one frame moves that, in ms. */
const mostLead = 0.08;
const leadStep = 0.0005;

interface Direction {
  from: number;
  to: number;
  /** Undefined where frames pass at once. */
  queue: DelayQueue | undefined;
  ringAddress: number;
  delayMs: number;
}

const job = JSON.parse(process.argv[2]!) as RelayJob;
preferPunctuality();
const directions = job.links.flatMap(openLink);
// struct pollfd: descriptor, then 16 bits asked for and 16 bits found.
const descriptors = new NativeMemory(new Int32Array(2 * directions.length));
for (const [index, { from }] of directions.entries()) descriptors.view.set([from, pollIn], 2 * index);
// struct timespec: 64 bits of seconds, 64 bits of nanoseconds; neither ever needs its upper half.
const timeout = new NativeMemory(new Int32Array(4));
/** Takes frames that pass at once, and those that are lost. */
const scratch = new NativeMemory(new Uint8Array(largestTapFrame));

const published = publish(job.statisticsFile);
const lateness = new LatenessHistogram();
const statistics: RelayStatistics = { frames: 0, bytes: 0, dropped: 0, latenessUs: null };
let leadMs = 0;
let reportedFrames = 0;
let reportedAt = performance.now();

process.stdout.write(`${relayReadyLine}\n`, relay);

function relay(): void {
  for (;;) {
    waitForFrames();
    const now = performance.now();
    for (const [index, direction] of directions.entries()) {
      const found = descriptors.view[2 * index + 1]! >> 16;
      if ((found & ~pollIn) !== 0) process.exit(0);
      if (found !== 0) take(direction, now);
    }
    for (const direction of directions) release(direction);
    if (now - reportedAt > statisticsEveryMs) report(now);
  }
}

/** Sleeps until a frame comes or is due. */
function waitForFrames(): void {
  let due = reportedAt + 2 * statisticsEveryMs;
  for (const { queue } of directions) if (queue !== undefined && queue.due < due) due = queue.due;
  const waitMs = Math.max(0, due - leadMs - performance.now());
  timeout.view[0] = Math.floor(waitMs / 1000);
  timeout.view[2] = Math.floor((waitMs % 1000) * 1e6);
  if (ppoll(descriptors.address, directions.length, timeout.address, 0) < 0 && lastError() !== errors.EINTR)
    process.exit(1);
}

function take(direction: Direction, now: number): void {
  const { from, to, queue, ringAddress, delayMs } = direction;
  for (let turn = 0; turn < framesPerTurn; turn++) {
    const offset = queue === undefined ? -1 : queue.reserve();
    const address = offset < 0 ? scratch.address : ringAddress + offset;
    const length = read(from, address, largestTapFrame);
    if (length <= 0) {
      if (length < 0 && lastError() === errors.EBADFD) process.exit(0);
      return;
    }
    statistics.frames += 1;
    statistics.bytes += length;
    if (queue === undefined) pass(to, address, length);
    else if (offset < 0) statistics.dropped += 1;
    else queue.push(length, now + delayMs);
  }
}

/** Passes on what is due; waking takes as long as `leadMs`, which follows the median so that half the frames are early. */
function release({ to, queue, ringAddress }: Direction): void {
  if (queue === undefined || queue.empty) return;
  let now = performance.now();
  while (queue.due <= now + leadMs) {
    pass(to, ringAddress + queue.offset, queue.length);
    now = performance.now();
    const late = now - queue.due;
    lateness.add(late * 1000);
    leadMs = Math.min(mostLead, Math.max(0, leadMs + Math.sign(late) * leadStep));
    queue.shift();
  }
}

function pass(to: number, address: number, length: number): void {
  if (write(to, address, length) < 0) statistics.dropped += 1;
}

function report(now: number): void {
  reportedAt = now;
  if (statistics.frames === reportedFrames) return;
  reportedFrames = statistics.frames;
  encodeStatistics({ ...statistics, latenessUs: lateness.summary() }, published);
}

function publish(file: string): Float64Array {
  writeFileSync(file, new Uint8Array(statisticsBytes), { mode: 0o600 });
  const descriptor = openSync(file, 'r+');
  const memory = mapFile(descriptor, statisticsBytes);
  closeSync(descriptor);
  return new Float64Array(memory);
}

function openLink({ host, port, rateMbit, latencyUs }: RelayLink): Direction[] {
  const [hostTap, portTap] = [openTap(host), openTap(port)];
  // All that the link can have under way during the delay, and a burst of unsegmented frames.
  const inFlightBytes = ((rateMbit ?? 10_000) * latencyUs) / 8;
  const ringBytes = Math.min(2 ** 28, Math.ceil(1.5 * inFlightBytes) + 4 * 2 ** 20);
  const queue = latencyUs === 0 ? undefined : new DelayQueue(ringBytes, 2 ** 16, largestTapFrame);
  const ringAddress = queue === undefined ? 0 : addressOf(queue.ring);
  return [
    { from: hostTap, to: portTap, queue, ringAddress, delayMs: latencyUs / 1000 },
    { from: portTap, to: hostTap, queue: undefined, ringAddress: 0, delayMs: 0 },
  ];
}

/** Ranks that compute must not hold frames back: real-time priority, or the highest ordinary one where that is refused. */
function preferPunctuality(): void {
  prctl(setTimerSlack, 1);
  if (schedule(0, firstInFirstOut, Int32Array.of(1)) !== 0) setPriority(-20);
}
