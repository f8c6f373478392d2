// Follow the system's light or dark until the user chooses one.
if (!window.localStorage.getItem('vite-ui-theme')) window.localStorage.setItem('vite-ui-theme', 'system');

// A new conversation gets its address with the first message, so that a reload comes back to it. The server
// sends the address over the open socket; Chainlit passes it on as a message of this window to itself.
window.addEventListener('message', (event) => {
  const data = event.data;
  if (event.source !== window || event.origin !== window.location.origin) return;
  if (!data || data.kind !== 'conversation' || !/^[\w-]{1,100}$/.test(data.thread_id)) return;
  const address = `${window.location.pathname.split('/thread/')[0].replace(/\/$/, '')}/thread/${data.thread_id}`;
  if (window.location.pathname !== address) window.history.replaceState(window.history.state, '', address);
});
