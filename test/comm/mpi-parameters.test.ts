import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ownParameters,
  parameterWords,
  rankParameters,
  setParametersInEnvironment,
  withoutRepeatedParameters,
} from '../../src/comm/mpi-parameters.ts';

describe('parameters of Open MPI', () => {
  it('are given once each, the last one', () => {
    const words = '--mca a 1 --bind-to none --mca b 2 --mca a 3 -x MCA=a --mca c 4';
    assert.deepEqual(
      withoutRepeatedParameters(words.split(' ')),
      '--bind-to none --mca b 2 --mca a 3 -x MCA=a --mca c 4'.split(' '),
    );
    assert.deepEqual(withoutRepeatedParameters(['--mca', 'a', '--mca']), ['--mca', 'a', '--mca']);
  });

  it('reach ranks that somebody else has started, except where they are set already', () => {
    const environment = { OMPI_MCA_btl_tcp_eager_limit: '65536' };
    setParametersInEnvironment(ownParameters(), environment);
    assert.deepEqual(environment, {
      OMPI_MCA_btl_tcp_eager_limit: '65536',
      OMPI_MCA_mpi_yield_when_idle: '1',
      OMPI_MCA_btl_tcp_flags: 'send,inplace',
      OMPI_MCA_btl_tcp_rcvbuf: '4194304',
    });
  });

  it("give way to a user's own", () => {
    const words = withoutRepeatedParameters([
      ...parameterWords(rankParameters),
      '--mca',
      'btl_tcp_eager_limit',
      '65536',
    ]);
    assert.equal(words.filter((word) => word === 'btl_tcp_eager_limit').length, 1);
    assert.equal(words.at(-1), '65536');
  });
});
