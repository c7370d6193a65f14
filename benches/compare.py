#!/usr/bin/env python3
"""Measures hublet beside servers that do the same job, and prints the table of docs/figures.md.

    python3 benches/compare.py [--hublet BINARY] [--reps N] [--secs S] [--clients N] [--only ROW,..]
                               [--peers NAME,..] [--raw FILE]

Needs Linux, python3, cargo and a C compiler. BINARY is the static binary of the dist profile
unless it is given. Every peer that this machine can build or run takes part; one that is missing
is named, with what it needs.

Every measurement starts a fresh server, runs one scenario of benches/load against it and stops it.
Servers take turns inside each row and the order rotates with each repetition, so that a busy
machine is busy for all of them; figures are medians over the repetitions. CPU is the server's own,
all of its threads and children, the kernel's share included.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.path.join(os.environ.get('CARGO_TARGET_DIR', os.path.join(ROOT, 'target')), 'bench')
LOAD = os.path.join(TARGET, 'release', 'load')
STATIC = os.path.join(ROOT, 'target/x86_64-unknown-linux-musl/dist/hublet')
NCHAN = '/usr/lib/nginx/modules/ngx_nchan_module.so'
GORILLA = '/usr/share/gocode/src/github.com/gorilla/websocket'

# How each peer is built and started, and what must be there. The order is the table's.
PEERS = {
    'limit-c-msg': dict(needs=['cc'], run=['{target}/limit', '{port}', 'msg']),
    'limit-c': dict(needs=['cc'], run=['{target}/limit', '{port}', 'read']),
    'tungstenite': dict(needs=['cargo'], run=['{target}/release/peer-tungstenite', '{port}']),
    'axum': dict(needs=['cargo'], run=['{target}/release/peer-axum', '{port}']),
    'gorilla': dict(needs=['go', GORILLA], run=['{target}/gorilla', '{port}'],
                    how='apt-get install golang-go golang-github-gorilla-websocket-dev'),
    'node-ws': dict(needs=['node', 'npm'], run=['node', '{here}/peers/node.js', '{port}'],
                    how='node and npm'),
    'nchan': dict(needs=['nginx', NCHAN], run=['nginx', '-c', '{target}/nchan-{port}.conf'],
                  how='apt-get install nginx-light libnginx-mod-nchan'),
}

FAN = [(subs, size, rate)
       for size, rates in ((32, (2000, 500, 40)), (512, (2000, 500, 40)), (16384, (500, 100, 10)))
       for subs, rate in zip((10, 100, 1000), rates)]


def rows(clients):
    """For each row its title, the scenario, the figure, and how the figure is shown."""
    us = lambda v: f'{v:.2f} µs'
    table = {}
    for subs, size, rate in FAN:
        word = f'{size} B' if size < 1024 else f'{size // 1024} KiB'
        table[f'fan{subs}x{size}'] = (
            f'CPU per delivery, {subs:,} x {word}',
            f'fanout --subs {subs} --size {size} --rate {rate} --nap-us 5000',
            lambda r: r['srv_cpu_us_per_delivery'], us)
    table['saturation'] = (
        'deliveries a second, 100 x 32 B, as fast as it goes',
        'fanout --subs 100 --size 32 --window 64',
        lambda r: r['deliveries_per_s'], lambda v: f'{v / 1e3:,.0f} k')
    table['latency'] = (
        '99th percentile of latency, 100 x 512 B, 100 a second',
        'fanout --subs 100 --size 512 --rate 100',
        lambda r: r['lat_p99_us'], lambda v: f'{v:,.0f} µs')
    table['trip'] = ('round trip, one client, median', 'rtt --clients 1 --size 32',
                     lambda r: r['rtt_p50_us'], lambda v: f'{v:.0f} µs')
    table['handshake'] = ('CPU per handshake and close', 'churn --conc 64',
                          lambda r: r['srv_cpu_us_per_handshake'], lambda v: f'{v:.0f} µs')
    table['storm'] = ('1,000 connect at once, all in after', 'idle --conns 1000 --conc 1000 --hold-ms 0',
                      lambda r: r['opened'] / r['connects_per_s'], lambda v: f'{v * 1e3:.0f} ms')
    kib = lambda v: f'{v:,.0f} B'
    mib = lambda v: f'{v / 1e6:.2f} MB'
    idle = f'idle --conns {clients} --conc 100 --broadcast 5'
    title = f'{clients:,} clients'
    table['idle'] = (f'RSS per idle client, {title}', idle,
                     lambda r: r['srv_rss_bytes_per_conn'], kib)
    table['all'] = (f'CPU per delivery, {title}', idle,
                    lambda r: r['broadcast_srv_cpu_us_per_delivery'], us)
    table['start'] = ('RSS at start', idle, lambda r: r['srv_rss_empty_kb'] * 1024, mib)
    table['after'] = (f'RSS after {title} came and went', idle,
                      lambda r: r['srv_rss_closed_kb'] * 1024, mib)
    return table


def main():
    options = parse()
    if not options.inside:
        prepare(options)
        isolate()
    servers = {'hublet': [options.hublet, '--listen', '127.0.0.1:{port}', '--log', 'error']}
    servers |= {name: PEERS[name]['run'] for name in options.peers}
    table = rows(options.clients)
    chosen = options.only or list(table)
    results = {}
    raw = open(options.raw, 'a') if options.raw else None
    for turn in range(options.reps):
        for scenario in dict.fromkeys(table[row][1] for row in chosen):
            for nth in range(len(servers)):
                name = list(servers)[(nth + turn) % len(servers)]
                result = measure(servers[name], scenario, options.secs)
                results.setdefault((name, scenario), []).append(result)
                if raw:
                    raw.write(json.dumps(dict(server=name, turn=turn, run=scenario, **result)) + '\n')
                    raw.flush()
    show(options, servers, table, chosen, results)


def parse():
    parser = argparse.ArgumentParser(usage=__doc__)
    words = lambda text: text.split(',')
    parser.add_argument('--hublet', default=STATIC)
    parser.add_argument('--peers', type=words)
    parser.add_argument('--only', type=words)
    parser.add_argument('--reps', type=int, default=5)
    parser.add_argument('--secs', type=float, default=1.0)
    parser.add_argument('--clients', type=int, default=10_000)
    parser.add_argument('--raw')
    parser.add_argument('--inside', action='store_true')
    options = parser.parse_args()
    if options.inside:
        return options
    if not os.path.exists(options.hublet):
        sys.exit(f'{options.hublet} is not there: build it with deploy/build, or name one with --hublet')
    options.hublet = os.path.abspath(options.hublet)
    unknown = [row for row in options.only or [] if row not in rows(1)]
    unknown += [name for name in options.peers or [] if name not in PEERS]
    if unknown:
        sys.exit(f'unknown: {unknown}; rows are {list(rows(1))}, peers {list(PEERS)}')
    return options


def prepare(options):
    """Builds the load generator and the peers, and finds out which are missing."""
    os.makedirs(TARGET, exist_ok=True)
    build('load', ['cargo', 'build', '-q', '--release', '--manifest-path', f'{HERE}/load/Cargo.toml'])
    present = []
    for name in options.peers or PEERS:
        peer = PEERS[name]
        missing = [need for need in peer['needs'] if not (shutil.which(need) or os.path.exists(need))]
        if missing or not build_peer(name):
            how = peer.get('how', f'needs {" and ".join(peer["needs"])}')
            print(f'{name} is missing here and takes no part: {how}', file=sys.stderr)
        else:
            present.append(name)
    sys.argv += ['--inside', '--hublet', options.hublet, '--peers', ','.join(present)]


def build_peer(name):
    peers = f'{HERE}/peers'
    if name.startswith('limit'):
        command = ['cc', '-O2', '-static', '-s', '-o', f'{TARGET}/limit', f'{peers}/limit.c']
        return build(name, command)
    if name in ('axum', 'tungstenite'):
        manifest = f'{peers}/{name}/Cargo.toml'
        return build(name, ['cargo', 'build', '-q', '--release', '--manifest-path', manifest])
    if name == 'gorilla':
        command = ['go', 'build', '-ldflags=-s -w', '-o', f'{TARGET}/gorilla', f'{peers}/gorilla.go']
        env = dict(GO111MODULE='off', GOPATH='/usr/share/gocode', CGO_ENABLED='0')
        return build(name, command, GOCACHE=f'{TARGET}/gocache', **env)
    if name == 'node-ws' and not os.path.exists(f'{TARGET}/node_modules/ws'):
        return build(name, ['npm', 'install', '--no-audit', '--no-fund', '--prefix', TARGET, 'ws'])
    return True


def build(name, command, **env):
    env = dict(os.environ, CARGO_TARGET_DIR=TARGET, **env)
    built = subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode == 0
    if not built and name == 'load':
        sys.exit('the load generator does not build')
    return built


def isolate():
    """Goes on in a network of its own, if that is allowed: no other traffic, no foreign ports."""
    again = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
    probe = ['unshare', '-n', 'ip', 'link', 'set', 'lo', 'up']
    try:
        allowed = subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        allowed = False
    if allowed:
        script = 'ip link set lo up && sysctl -qw net.ipv4.tcp_congestion_control=reno; exec "$@"'
        os.execvp('unshare', ['unshare', '-n', 'sh', '-c', script, 'sh', *again])
    os.execv(sys.executable, again)


def measure(command, scenario, secs):
    """Runs one scenario against a fresh server; returns what the load generator printed."""
    port = free_port()
    fill = dict(port=port, target=TARGET, here=HERE)
    if command[0] == 'nginx':
        text = open(f'{HERE}/peers/nchan.conf').read()
        text = text.replace('@PORT@', str(port)).replace('@TARGET@', TARGET)
        open(f'{TARGET}/nchan-{port}.conf', 'w').write(text)
    env = dict(os.environ, NODE_PATH=f'{TARGET}/node_modules', NODE_ENV='production')
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = subprocess.Popen([word.format(**fill) for word in command], env=env, **quiet)
    try:
        await_port(server, port)
        load = [LOAD, *scenario.split(), '--port', str(port), '--pid', str(server.pid)]
        if not scenario.startswith('idle'):
            load += ['--secs', str(secs)]
        ran = subprocess.run(load, capture_output=True, text=True, timeout=secs + 120)
        if ran.returncode != 0:
            return {'error': ran.stderr.strip() or f'exit code {ran.returncode}'}
        return json.loads(ran.stdout.splitlines()[-1])
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {'error': str(error)}
    finally:
        stop(server)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def await_port(server, port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            time.sleep(0.1)  # it settles, so that what it is measured by begins at rest
            return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError('the server does not accept connections')


def stop(server):
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(2)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def show(options, servers, table, chosen, results):
    names = list(servers)
    base = 'limit-c-msg' if 'limit-c-msg' in servers else None
    width = max(len(table[row][0]) for row in chosen)
    line = lambda cells: '| ' + ' | '.join([cells[0].ljust(width), *cells[1:]]) + ' |'
    print(line(['', *names]))
    print(line(['---'] + ['---:'] * len(names)))
    for row in chosen:
        title, scenario, figure, form = table[row]
        cells = [title]
        for name in names:
            runs = results[name, scenario]
            good = [figure(run) for run in runs if 'error' not in run]
            if not good:
                cells.append('failed')
                continue
            cell = form(statistics.median(good))
            if base and name != base and row.startswith('fan'):
                pairs = zip(runs, results[base, scenario])
                ratios = [figure(a) / figure(b) for a, b in pairs if 'error' not in {**a, **b}]
                cell += f' ({statistics.median(ratios):.2f}x)'
            cells.append(cell + ('!' if any(map(lossy, runs)) else ''))
        print(line(cells))
    print()
    print('(x): the median of the ratios to limit-c-msg in the same repetition.')
    print('!: messages or clients were lost, or a connection was refused, in at least one repetition.')
    print(f'hublet: {os.path.getsize(options.hublet):,} bytes; {machine()}; {options.reps} repetitions.')
    for (name, scenario), runs in results.items():
        for run in runs:
            if 'error' in run or lossy(run):
                trouble = {key: run.get(key) for key in TROUBLE if run.get(key)}
                print(f'{name}, {scenario}: {trouble}', file=sys.stderr)


TROUBLE = ('error', 'lost', 'broadcast_lost', 'disconnects', 'connect_failed', 'stalls',
           'proto_errors', 'close_reasons')


def lossy(run):
    return any(run.get(key) for key in TROUBLE)


def machine():
    model = 'unknown processor'
    for text in open('/proc/cpuinfo'):
        if text.startswith('model name'):
            model = text.split(':', 1)[1].strip()
            break
    return f'{os.cpu_count()} x {model}, Linux {os.uname().release.split("-")[0]}'


main()
