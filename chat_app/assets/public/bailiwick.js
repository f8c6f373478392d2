// Follow the system's light or dark until the user chooses one.
if (!window.localStorage.getItem('vite-ui-theme')) window.localStorage.setItem('vite-ui-theme', 'system');
