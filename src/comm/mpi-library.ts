/**
 * Open MPI's C library, called through koffi. Both are loaded on first use, so that nothing else needs them.
 *
 * Handles and pointers cross as plain numbers: addresses fit 2^53, and numbers are the cheapest arguments (some 30 ns a
 * call). Open MPI's handles are the addresses of global symbols; every function returns an error code.
 */
import { createRequire } from 'node:module';
import { SmoeError } from '../errors.ts';

type Koffi = typeof import('koffi');
type NativeLibrary = ReturnType<Koffi['load']>;

/** Memory at a fixed address, for what native code keeps pointers to. */
export interface Region {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly integers: Int32Array;
  readonly floats: Float32Array;
}

const pointer = 'uintptr_t';

/** Arguments of the functions used; all return an `int`. `p` = pointer or handle, `i` = int. */
const signatures = {
  MPI_Init: 'pp',
  MPI_Initialized: 'p',
  MPI_Finalize: '',
  MPI_Abort: 'pi',
  MPI_Comm_rank: 'pp',
  MPI_Comm_size: 'pp',
  MPI_Comm_dup: 'pp',
  MPI_Comm_split: 'piip',
  MPI_Comm_set_errhandler: 'pp',
  MPI_Error_class: 'ip',
  MPI_Error_string: 'ipp',
  MPI_Isend: 'pipiipp',
  MPI_Irecv: 'pipiipp',
  MPI_Recv_init: 'pipiipp',
  MPI_Startall: 'ip',
  MPI_Test: 'ppp',
  MPI_Testall: 'ippp',
  MPI_Iprobe: 'iippp',
  MPI_Get_count: 'ppp',
} as const;
type FunctionName = keyof typeof signatures;
type NativeFunctions = Record<FunctionName, (...args: number[]) => number>;

export interface MpiLibrary {
  /** First words of MPI_Get_library_version, such as "Open MPI v4.1.4". */
  readonly version: string;
  readonly mpi: NativeFunctions;
  readonly world: number;
  readonly byteType: number;
  readonly errorsReturn: number;
  /** The region of an existing buffer; the caller keeps the buffer alive and never resizes it. */
  regionOf(buffer: ArrayBufferLike): Region;
  /** Fresh zeroed memory. */
  allocate(bytes: number): Region;
  /** Throws unless `status` is MPI_SUCCESS. */
  check(status: number, what: string): void;
}

/** The few calls of the C library that Node.js does not offer. */
export interface SystemCalls {
  dup(descriptor: number): number;
  dup2(from: number, to: number): number;
  /** Has the kernel kill this process when its parent ends; where the system knows of such a thing. */
  dieWithParent(): void;
}

export const mpiAnySource = -1;
export const mpiAnyTag = -1;
/** Bytes that hold an MPI_Status. */
export const statusBytes = 24;

const libraryNames =
  process.platform === 'darwin' ? ['libmpi.40.dylib', 'libmpi.dylib'] : ['libmpi.so.40', 'libmpi.so'];
const versionBytes = 8192;
const truncatedClass = 15;

export const installHint: string =
  'install Open MPI 4 or 5 on every host: apt-get install openmpi-bin (Debian, Ubuntu), dnf install openmpi (Fedora), ' +
  'brew install open-mpi (macOS)';

/** The npm package that calls native libraries. */
export function loadKoffi(): Koffi {
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new SmoeError('MPI_BINDING', 'the npm package koffi, which calls MPI, cannot be loaded', {
      hint: 'run npm ci on this host',
      cause: error,
    });
  }
}

/** Loads the library and refuses what is not Open MPI 4 or 5; does not start MPI. */
export function loadMpi(): MpiLibrary {
  const koffi = loadKoffi();
  const library = openLibrary(koffi);
  const version = libraryVersion(koffi, library);
  assertSupported(version);
  const mpi = Object.fromEntries(
    Object.entries(signatures).map(([name, letters]) => [
      name,
      library.func(
        name,
        'int',
        Array.from(letters, (letter) => (letter === 'p' ? pointer : 'int')),
      ),
    ]),
  ) as unknown as NativeFunctions;
  const handle = (symbol: string): number => Number(koffi.address(library.symbol(symbol)));
  const regionOf = (buffer: ArrayBufferLike): Region => {
    const bytes = new Uint8Array(buffer);
    return {
      address: Number(koffi.address(bytes)),
      bytes,
      integers: new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4)),
      floats: new Float32Array(buffer, 0, Math.floor(buffer.byteLength / 4)),
    };
  };
  const allocate = (bytes: number): Region => regionOf(new ArrayBuffer(Math.max(8, Math.ceil(bytes / 8) * 8)));
  const errorText = allocate(1024);
  return {
    version,
    mpi,
    world: handle('ompi_mpi_comm_world'),
    byteType: handle('ompi_mpi_byte'),
    errorsReturn: handle('ompi_mpi_errors_return'),
    regionOf,
    allocate,
    check: (status, what) => {
      if (status === 0) return;
      mpi.MPI_Error_class(status, errorText.address);
      const truncated = errorText.integers[0] === truncatedClass;
      mpi.MPI_Error_string(status, errorText.address + 8, errorText.address);
      const text = Buffer.from(errorText.bytes.subarray(8, 8 + errorText.integers[0])).toString();
      throw new SmoeError(truncated ? 'COMM_MISMATCH' : 'MPI_FAILED', `${what}: ${text}`);
    },
  };
}

function openLibrary(koffi: Koffi): NativeLibrary {
  const names = process.env.SMOE_MPI_LIBRARY === undefined ? libraryNames : [process.env.SMOE_MPI_LIBRARY];
  const failures: unknown[] = [];
  // UCX, which Open MPI may bring along, tries its memory hooks by sbrk(+page) and sbrk(-page) when it is loaded. Where V8's code
  // happens to lie right above the heap the first fails, and the second takes a page that is in use.
  process.env.UCX_MEM_EVENTS ??= 'n';
  for (const name of names) {
    try {
      // Open MPI's plug-ins look for its symbols globally.
      return koffi.load(name, { global: true });
    } catch (error) {
      failures.push(error);
    }
  }
  throw new SmoeError('MPI_MISSING', `${names.join(' or ')} cannot be loaded: ${String(failures[0])}`, {
    hint: installHint,
  });
}

function libraryVersion(koffi: Koffi, library: NativeLibrary): string {
  let get: (text: number, length: number) => number;
  try {
    get = library.func('MPI_Get_library_version', 'int', [pointer, pointer]) as typeof get;
    library.symbol('ompi_mpi_comm_world');
  } catch {
    throw flavourError('the MPI library found');
  }
  const text = new Uint8Array(new ArrayBuffer(versionBytes));
  const length = new Int32Array(new ArrayBuffer(8));
  get(Number(koffi.address(text)), Number(koffi.address(length)));
  return Buffer.from(text.subarray(0, length[0])).toString().split(',')[0];
}

/** Throws unless `version`, of the library or of mpirun, is one this transport can talk to. */
export function assertSupported(version: string): void {
  const match = /Open MPI\)? v?(\d+)\.(\d+)/.exec(version);
  if (match === null) throw flavourError(`"${version.split('\n')[0]}"`);
  if (match[1] === '4' || match[1] === '5') return;
  throw new SmoeError(
    'MPI_VERSION',
    `Open MPI ${match[1]}.${match[2]} is not supported; 4.1 and 5.0 are what it is tested with`,
    {
      hint: installHint,
    },
  );
}

function flavourError(what: string): SmoeError {
  return new SmoeError('MPI_FLAVOUR', `${what} is not Open MPI; its handles and launcher differ`, {
    hint: `${installHint}; where several are installed, put the mpirun of Open MPI first on PATH`,
  });
}

export function loadSystemCalls(): SystemCalls {
  const koffi = loadKoffi();
  const library = koffi.load(null);
  const parentDeathSignal = 1;
  const killSignal = 9;
  return {
    dup: library.func('dup', 'int', ['int']),
    dup2: library.func('dup2', 'int', ['int', 'int']),
    dieWithParent: () => {
      if (process.platform !== 'linux') return;
      library.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong'])(parentDeathSignal, killSignal, 0, 0, 0);
    },
  };
}
