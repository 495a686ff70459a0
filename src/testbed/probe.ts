/**
 * Entry of the processes that measure a path.
 *
 *   node probe.js receive              prints the port it listens on, takes in whatever comes
 *   node probe.js send ADDRESS PORT    prints the figures of the path to ADDRESS as one line of JSON
 */
import { connect, createServer } from 'node:net';
import { EchoSocket } from './echo.ts';

export interface ProbeFigures {
  /** What one TCP connection carried after it had come up to speed. */
  rateMbit: number;
  /** Of ICMP echoes, in microseconds. */
  rttUs: { samples: number; minimum: number; p50: number; p99: number; maximum: number };
}

const warmUpEchoes = 100;
const echoes = 200;
const echoEveryMs = 2;
const warmUpMs = 400;
const transferMs = 1000;

const [role, address, port] = process.argv.slice(2) as [string, string, string];
if (role === 'receive') receive();
else
  process.stdout.write(
    `${JSON.stringify({ rttUs: roundTrips(), rateMbit: await transferRate() } satisfies ProbeFigures)}\n`,
  );

/** Says about every chunk that it came, in a count of bytes: the sender's own count includes what only its buffers hold. */
function receive(): void {
  const server = createServer((socket) => {
    let bytes = 0;
    let from = 0;
    socket.on('data', (chunk) => {
      const now = performance.now();
      if (from === 0) from = now + warmUpMs;
      else if (now >= from) bytes += chunk.length;
      if (now < from + transferMs) return;
      socket.removeAllListeners('data');
      socket.end(String((bytes * 8) / (now - from) / 1000));
    });
    socket.on('error', () => socket.destroy());
  });
  server.listen(0, () => process.stdout.write(`${(server.address() as { port: number }).port}\n`));
}

/** Sends as fast as it goes until the receiver answers with the rate it saw. */
function transferRate(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), address);
    const chunk = Buffer.alloc(2 ** 16);
    const fill = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on('connect', fill);
    socket.on('drain', fill);
    socket.on('error', reject);
    socket.once('data', (answer) => {
      socket.destroy();
      resolve(Math.round(Number(answer.toString()) * 10) / 10);
    });
  });
}

function roundTrips(): ProbeFigures['rttUs'] {
  const socket = new EchoSocket(address);
  const times: number[] = [];
  // The first ones find the other host's Ethernet address and have the code of the relay compiled.
  for (let sequence = 0; sequence < warmUpEchoes + echoes; sequence++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, echoEveryMs);
    const time = socket.roundTripUs(sequence);
    if (time !== undefined && sequence >= warmUpEchoes) times.push(time);
  }
  if (times.length === 0) throw new Error(`${address} answers no echo`);
  times.sort((a, b) => a - b);
  const quantile = (share: number): number =>
    Math.round(times[Math.min(times.length - 1, Math.floor(share * times.length))]!);
  return { samples: times.length, minimum: quantile(0), p50: quantile(0.5), p99: quantile(0.99), maximum: quantile(1) };
}
