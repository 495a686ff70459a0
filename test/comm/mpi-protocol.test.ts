import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { assertAgreement, assertSameBuild, assertSameMpi, buildFingerprint } from '../../src/comm/mpi-agreement.ts';
import { LauncherOutput } from '../../src/comm/mpi-launcher-output.ts';
import { decodeLine, encodeFrame, encodeLine, FrameReader } from '../../src/comm/mpi-protocol.ts';

describe('frames', () => {
  const part = fc.oneof(
    fc.record(
      { rank: fc.integer({ min: -1, max: 63 }), body: fc.uint8Array({ maxLength: 300 }) },
      { noNullPrototype: true },
    ),
    fc.constantFrom('printed\n', '\u0000smoe', '\u0000').map((text) => ({ stray: text })),
  );

  it('are found in any chunks, between anything else', () => {
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 12 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 90 })),
        (parts, lengths) => {
          const stream = Buffer.concat(
            parts.map((each) => ('body' in each ? encodeFrame(each.rank, each.body) : Buffer.from(each.stray))),
          );
          const found: { rank: number; body: Uint8Array }[] = [];
          let stray = '';
          const reader = new FrameReader(
            (rank, body) => found.push({ rank, body }),
            (bytes) => (stray += Buffer.from(bytes).toString()),
          );
          for (let at = 0; at < stream.length;) {
            const end = at + lengths.next().value;
            reader.push(stream.subarray(at, end));
            at = end;
          }
          // Flushes an end that may have been the beginning of a frame.
          reader.push(Buffer.from('.'.repeat(100)));
          assert.deepEqual(
            found,
            parts.filter((each) => 'body' in each),
          );
          const expected = parts.map((each) => ('stray' in each ? each.stray : '')).join('');
          assert.equal(stray, expected + '.'.repeat(100));
        },
      ),
    );
  });
});

describe('lines of standard error', () => {
  it('carry messages, whatever stands before them', () => {
    const message = { type: 'exit', reason: 'line\nfeed' } as const;
    const line = encodeLine(3, message).trim();
    assert.deepEqual(decodeLine(`unfinished ${line}`), { rank: 3, message });
    assert.equal(decodeLine('something else'), undefined);
    assert.equal(decodeLine(line.slice(0, -20)), undefined);
  });

  it('name the rank that mpirun saw end, and the host that it lost', () => {
    const deaths: string[] = [];
    const lines: string[] = [];
    const output = new LauncherOutput({
      onMessage: () => assert.fail('no message'),
      onDeath: (rank, reason) => deaths.push(`${rank} ${reason}`),
      onHostLost: (host) => deaths.push(`lost ${host}`),
      onLine: (line) => lines.push(line),
    });
    const ruler = '-'.repeat(74);
    const killed = 'mpirun noticed that process rank 2 with PID 0 on node b exited on signal 9 (Killed).';
    const exited = 'The first process to do so was:\n\n  Process name: [[4519,1],1]\n  Exit code:    7';
    for (const text of [`before\n${ruler}\n${killed}\n`, `${ruler}\n${ruler}\n${exited}\n${ruler}\nafter\n`]) {
      for (const character of text) output.push(character);
    }
    // The same of Open MPI 5.
    const killed5 = 'prterun noticed that process rank 0 with PID 13524 on node c exited on\nsignal 9 (Killed).';
    const exited5 = 'The first process to do so was:\n\n   Process name: [prterun-c-13511@1,3]\n   Exit code:    1';
    output.push(`${ruler}\n${killed5}\n${ruler}\n${ruler}\n${exited5}\n${ruler}\n`);
    const heading = 'ORTE has lost communication with a remote daemon.\n\n  HNP daemon   : [[1,0],0] on node a\n';
    output.push(`${ruler}\n${heading}  Remote daemon: [[1,0],2] on node 10.0.0.3\n\nThis is\n${ruler}\n`);
    assert.deepEqual(deaths, [
      '2 signal 9 (Killed) on b',
      '1 exited with code 7',
      '0 signal 9 (Killed) on c',
      '3 exited with code 1',
      'lost 10.0.0.3',
    ]);
    assert.deepEqual(lines, ['before', 'after']);
    assert.ok(output.tail.includes(killed));
  });
});

describe('what keeps ranks from being started', () => {
  it('is told from what ssh, shells and Node.js say', () => {
    const cases: [string, RegExp][] = [
      ['ssh: connect to host 10.0.0.7 port 22: No route to host\r', /^ssh cannot reach 10\.0\.0\.7: No route to host$/],
      ['ssh: Could not resolve hostname nowhere: Name or service not known', /^nowhere is not known/],
      ['root@10.0.0.2: Permission denied (publickey,password).', /^10\.0\.0\.2 lets nobody in without a password/],
      ['Host key verification failed.', /^ssh does not know the key/],
      ['bash: line 1: orted: command not found', /^a host has no orted/],
      [
        "Error: Cannot find module '/opt/smoe/dist/src/comm/mpi-rank.js'",
        /^a host does not have \/opt\/smoe\/.*rank\.js$/,
      ],
    ];
    for (const [line, expected] of cases) {
      const nothing = (): void => undefined;
      const output = new LauncherOutput({
        onMessage: nothing,
        onDeath: nothing,
        onHostLost: nothing,
        onLine: nothing,
      });
      output.push(`Permission denied, please try again.\n${line}\nhint\n`);
      assert.match(output.cause?.message ?? '', expected);
    }
  });
});

describe('agreement', () => {
  const identities = ['a', 'b'].map((host) => ({ host, build: '1', mpi: 'Open MPI v4.1.4' }));

  it('names who differs', () => {
    assertAgreement([{ model: 'x' }, { model: 'x', plan: 'p' }], identities, { plan: 'p' });
    assert.throws(() => assertAgreement([{ model: 'x' }, { model: 'y' }], identities, {}), {
      code: 'RANKS_DISAGREE',
      message: 'rank 1 on b has model y, rank 0 on a has x',
    });
    assertSameBuild(identities, '1');
    assert.throws(() => assertSameBuild([identities[0], { ...identities[1], build: '2' }], '1'), {
      code: 'RANK_BUILD',
      message: 'rank 1 on b runs build 2, the host of the run 1',
    });
    assertSameMpi(identities);
    assert.throws(() => assertSameMpi([identities[0], { ...identities[1], mpi: 'Open MPI v5.0.1' }]), {
      code: 'MPI_VERSION',
      message: 'rank 1 on b runs Open MPI v5.0.1, rank 0 on a Open MPI v4.1.4',
    });
    assert.match(buildFingerprint(), /^[0-9a-f]{16}$/);
  });
});
