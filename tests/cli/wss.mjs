// Says a word over wss and hears it.
const socket = new WebSocket(process.argv[2]);
const fail = setTimeout(() => process.exit(1), 20_000);
socket.onerror = () => process.exit(1);
socket.onopen = () => socket.send("by Node");
socket.onmessage = ({ data }) => {
  if (data !== "by Node") process.exit(1);
  socket.onclose = () => clearTimeout(fail);
  socket.close();
};
