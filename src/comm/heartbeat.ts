/**
 * Whether the processes of a run are there: every rank holds a connection to rank 0, and both ends say something once a second.
 * MPI alone notices neither a cable pulled nor, under some schedulers, a process that has died.
 *
 * Meant for a thread of its own, so that a rank that computes or waits is heard too. Knows nothing of MPI.
 */
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';

/** Where rank 0 listens. */
export interface HeartbeatAddress {
  /** Tried in this order. */
  addresses: string[];
  port: number;
  /** Name of the host. */
  host: string;
  /** What a rank says first, so that strangers are told apart. */
  token: string;
}

export interface HeartbeatTimes {
  beatMs: number;
  /** Without a word for so long, the other end is taken to be gone. */
  silenceMs: number;
  /** A closed connection may be the end of a process, which mpirun explains once it has ended all others. */
  closedGraceMs: number;
  /** How long one address is tried. */
  connectMs: number;
}

export const heartbeatTimes: HeartbeatTimes = { beatMs: 1000, silenceMs: 4000, closedGraceMs: 5000, connectMs: 3000 };

/** Why a peer is taken to be gone. */
export type Loss = 'silent' | 'closed';

const longestGreeting = 256;

/** One connection, heard and kept alive. */
class Pulse {
  readonly #socket: Socket;
  readonly #timers: NodeJS.Timeout[] = [];
  /** Milliseconds without a word. Time in which this process itself stood still counts little: the words are waiting to be read. */
  #quietMs = 0;
  #looked = performance.now();
  #over = false;

  constructor(socket: Socket, times: HeartbeatTimes, onLoss: (loss: Loss) => void) {
    this.#socket = socket;
    const lose = (loss: Loss): void => {
      if (this.#over) return;
      this.end();
      if (loss === 'silent') onLoss(loss);
      else setTimeout(() => onLoss(loss), times.closedGraceMs);
    };
    socket.on('data', () => (this.#quietMs = 0));
    socket.on('error', () => undefined);
    socket.on('close', () => lose('closed'));
    this.#timers.push(
      setInterval(() => {
        if (!socket.destroyed) socket.write('.');
      }, times.beatMs),
      setInterval(() => {
        const now = performance.now();
        this.#quietMs += Math.min(now - this.#looked, times.beatMs);
        this.#looked = now;
        if (this.#quietMs > times.silenceMs) lose('silent');
      }, times.beatMs / 2),
    );
  }

  end(): void {
    this.#over = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#socket.destroy();
  }
}

/** Rank 0's end. */
export class HeartbeatServer {
  readonly #server: Server;
  readonly #pulses = new Map<number, Pulse>();
  readonly #token: string;
  readonly #times: HeartbeatTimes;
  readonly #onLoss: (rank: number, host: string, loss: Loss) => void;

  constructor(
    token: string,
    onLoss: (rank: number, host: string, loss: Loss) => void,
    times: HeartbeatTimes = heartbeatTimes,
  ) {
    this.#token = token;
    this.#times = times;
    this.#onLoss = onLoss;
    this.#server = createServer((socket) => this.#greet(socket));
  }

  listen(): Promise<HeartbeatAddress> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(0, () => {
        const { port } = this.#server.address() as AddressInfo;
        resolve({ addresses: ownAddresses(), port, host: hostname(), token: this.#token });
      });
    });
  }

  end(): void {
    for (const pulse of this.#pulses.values()) pulse.end();
    this.#server.close();
  }

  /** The first line is "TOKEN RANK HOST"; whoever says something else is shown out. */
  #greet(socket: Socket): void {
    let text = '';
    const listen = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\n');
      if (end === -1 && text.length <= longestGreeting) return;
      socket.off('data', listen);
      const [token, rank, host = ''] = text.slice(0, Math.max(0, end)).split(' ');
      if (token !== this.#token || !/^\d+$/.test(rank ?? '') || this.#pulses.has(Number(rank))) {
        socket.destroy();
        return;
      }
      socket.setTimeout(0);
      socket.write(`${this.#token}\n`);
      this.#pulses.set(Number(rank), new Pulse(socket, this.#times, (loss) => this.#onLoss(Number(rank), host, loss)));
    };
    socket.setTimeout(this.#times.connectMs, () => socket.destroy());
    socket.on('error', () => undefined);
    socket.on('data', listen);
  }
}

/** Another rank's end. */
export class HeartbeatClient {
  readonly #address: HeartbeatAddress;
  readonly #rank: number;
  readonly #times: HeartbeatTimes;
  #pulse: Pulse | undefined;

  constructor(address: HeartbeatAddress, rank: number, times: HeartbeatTimes = heartbeatTimes) {
    this.#address = address;
    this.#rank = rank;
    this.#times = times;
  }

  /** Resolves to whether rank 0 could be reached at one of its addresses. */
  async start(onLoss: (loss: Loss) => void): Promise<boolean> {
    for (const address of this.#address.addresses) {
      const socket = await this.#tryAddress(address);
      if (socket === undefined) continue;
      this.#pulse = new Pulse(socket, this.#times, onLoss);
      return true;
    }
    return false;
  }

  end(): void {
    this.#pulse?.end();
  }

  #tryAddress(host: string): Promise<Socket | undefined> {
    const { port, token } = this.#address;
    return new Promise((resolve) => {
      const socket = connect({ host, port });
      let answer = '';
      const give = (result: Socket | undefined): void => {
        clearTimeout(timer);
        socket.removeAllListeners();
        if (result === undefined) {
          socket.on('error', () => undefined);
          socket.destroy();
        }
        resolve(result);
      };
      const timer = setTimeout(() => give(undefined), this.#times.connectMs);
      socket.on('error', () => give(undefined));
      socket.on('close', () => give(undefined));
      socket.on('connect', () => socket.write(`${token} ${this.#rank} ${hostname()}\n`));
      socket.on('data', (chunk: Buffer) => {
        answer += chunk.toString('latin1');
        if (answer.startsWith(`${token}\n`)) give(socket);
        else if (answer.length > longestGreeting) give(undefined);
      });
    });
  }
}

/** Addresses under which other hosts may reach this one; the loopback last, for ranks of this host where there is no other. */
function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
  const outward = all.filter(({ internal, address }) => !internal && !address.startsWith('fe80'));
  const ordered = outward.sort((a, b) => (a.family === b.family ? 0 : a.family === 'IPv4' ? -1 : 1));
  return [...ordered.map(({ address }) => address), '127.0.0.1'];
}
