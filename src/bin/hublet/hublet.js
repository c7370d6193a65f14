// connect('ws/lobby', { message, state }) stays connected to this hub.
export function connect(url, { message, state = () => {}, protocols }) {
	let socket, timer, since, tries = 0;
	const open = () => {
		state('connecting');
		since = NaN;
		socket = new WebSocket(new URL(url, import.meta.url.replace('http', 'ws')), protocols);
		socket.binaryType = 'arraybuffer';
		socket.onopen = () => state('connected', since = Date.now());
		socket.onmessage = ({ data }) => message(data);
		socket.onclose = ({ code, reason }) => {
			const why = `${reason || 'closed'} (${code})`;
			// Told to stay away; 1012 asks to come back, 1013 to wait.
			if (code == 1000 || code == 1008 || code > 4499) return state(why);
			tries = code == 1012 || Date.now() - since > 1e4 ? 0 : tries + 1;
			const wait = Math.min(30, (code == 1013 ? 5 : 0.5) * 2 ** tries) * (1 + Math.random()) / 2;
			state(`${why}, next try in ${wait.toFixed(1)} s`);
			timer = setTimeout(open, wait * 1e3);
		};
	};
	open();
	return {
		send: data => socket.readyState == 1 && !socket.send(data),
		close() { clearTimeout(timer); socket.onclose = null; socket.close(); },
	};
}
