import { launchRanks } from '../../src/comm/rank-group.ts';
import { runConformance } from './conformance.ts';

runConformance('threads', (options) => launchRanks(options));
