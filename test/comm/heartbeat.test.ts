import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { HeartbeatClient, HeartbeatServer, type HeartbeatTimes, type Loss } from '../../src/comm/heartbeat.ts';

const times: HeartbeatTimes = { beatMs: 20, silenceMs: 400, closedGraceMs: 50, connectMs: 1000 };
const token = 'secret';

/** A promise of the first call of the function that comes with it. */
function firstCall<Arguments extends unknown[]>(): [Promise<Arguments>, (...args: Arguments) => void] {
  let called!: (args: Arguments) => void;
  const call = new Promise<Arguments>((resolve) => (called = resolve));
  return [call, (...args) => called(args)];
}

describe('heartbeat', () => {
  it('is heard on both ends until either stops on purpose', async () => {
    const losses: unknown[] = [];
    const server = new HeartbeatServer(token, (...loss) => losses.push(loss), times);
    const address = await server.listen();
    const client = new HeartbeatClient(address, 3, times);
    assert.equal(await client.start((loss) => losses.push(loss)), true);
    await new Promise((resolve) => setTimeout(resolve, 2 * times.silenceMs));
    assert.deepEqual(losses, []);
    server.end();
    client.end();
  });

  it('tells rank 0 that a connection has closed, and whose', async () => {
    const [lost, onLoss] = firstCall<[number, string, Loss]>();
    const server = new HeartbeatServer(token, onLoss, times);
    const { port } = await server.listen();
    const socket = connect(port, '127.0.0.1', () => socket.write(`${token} 2 somewhere\n`));
    socket.once('data', () => socket.destroy());
    assert.deepEqual(await lost, [2, 'somewhere', 'closed']);
    server.end();
  });

  it('tells rank 0 of a rank that has fallen silent', async () => {
    const [lost, onLoss] = firstCall<[number, string, Loss]>();
    const server = new HeartbeatServer(token, onLoss, times);
    const { port } = await server.listen();
    const socket = connect(port, '127.0.0.1', () => socket.write(`${token} 1 elsewhere\n`));
    assert.deepEqual(await lost, [1, 'elsewhere', 'silent']);
    socket.destroy();
    server.end();
  });

  it('tells a rank that rank 0 has fallen silent', async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => {
      sockets.push(socket);
      socket.once('data', () => socket.write(`${token}\n`));
    });
    await new Promise<void>((resolve) => silent.listen(0, resolve));
    const { port } = silent.address() as { port: number };
    const [lost, onLoss] = firstCall<[Loss]>();
    const client = new HeartbeatClient({ addresses: ['127.0.0.1'], port, host: 'x', token }, 1, times);
    assert.equal(await client.start(onLoss), true);
    assert.deepEqual(await lost, ['silent']);
    for (const socket of sockets) socket.destroy();
    silent.close();
  });

  it('shows strangers out, on both ends', async () => {
    const server = new HeartbeatServer(token, () => assert.fail('lost a stranger'), times);
    const address = await server.listen();
    for (const greeting of ['wrong 1 x\n', `${token} one x\n`, 'a'.repeat(1000), `${token}\n`]) {
      const socket = connect(address.port, '127.0.0.1', () => socket.write(greeting));
      socket.on('error', () => undefined);
      await new Promise((resolve) => socket.on('close', resolve));
    }
    const stranger = new HeartbeatClient({ ...address, token: 'wrong' }, 1, times);
    assert.equal(await stranger.start(() => undefined), false);
    server.end();
    const nobody = new HeartbeatClient({ ...address, addresses: ['127.0.0.1'] }, 1, times);
    assert.equal(await nobody.start(() => undefined), false);
  });

  it('tries the next address when one leads nowhere', async () => {
    const server = new HeartbeatServer(token, () => undefined, times);
    const address = await server.listen();
    const client = new HeartbeatClient({ ...address, addresses: ['::ffff:127.9.9.9', '127.0.0.1'] }, 1, times);
    assert.equal(await client.start(() => undefined), true);
    client.end();
    server.end();
  });
});
