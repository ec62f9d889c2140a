"""Home Assistant as a child process with a folder of its own, and its API."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import aiohttp
import jwt

TIMEOUT = 120
USER, TOKEN, KEY = "check-user", "check-token", "k" * 64
BLUEPRINT = Path(__file__).parents[2] / "docs/home-assistant/camscribe-alert.yaml"
SETTINGS = """
homeassistant: {{name: Check, unit_system: metric, time_zone: UTC, latitude: 0, longitude: 0, elevation: 0,
                country: DE, currency: EUR}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
api:
websocket_api:
logger: {{default: info}}
# The action notify.notify, which goes nowhere.
command_line: [{{notify: {{name: notify, command: "cat >/dev/null"}}}}]
automation: {automations}
"""


async def until(what, ready):
    """Waits until `ready` returns something true, and returns it."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        result = ready()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        await asyncio.sleep(0.2)
    raise AssertionError(f"not within {TIMEOUT} s: {what}")


class HomeAssistant:
    def __init__(self, folder, broker_port, port):
        self.folder, self.port, self.process = folder, port, None
        storage = folder / ".storage"
        storage.mkdir(parents=True)
        # What a person does by hand: creates a user with a token, and adds the integration MQTT.
        now = datetime.now(timezone.utc).isoformat()
        user = {
            "id": USER,
            "group_ids": ["system-admin"],
            "is_owner": True,
            "is_active": True,
            "name": "Check",
            "system_generated": False,
            "local_only": False,
        }
        token = {
            "id": TOKEN,
            "user_id": USER,
            "client_id": None,
            "client_name": "check",
            "client_icon": None,
            "token_type": "long_lived_access_token",
            "created_at": now,
            "access_token_expiration": 3600.0,
            "token": "t" * 64,
            "jwt_key": KEY,
            "last_used_at": None,
            "last_used_ip": None,
            "expire_at": None,
            "credential_id": None,
            "version": None,
        }
        groups = [{"id": "system-admin", "name": "Administrators"}]
        auth = {"users": [user], "groups": groups, "credentials": [], "refresh_tokens": [token]}
        entry = {
            "entry_id": "check-mqtt",
            "version": 1,
            "minor_version": 1,
            "domain": "mqtt",
            "title": "MQTT",
            "data": {"broker": "127.0.0.1", "port": broker_port, "discovery": True},
            "options": {},
            "pref_disable_new_entities": False,
            "pref_disable_polling": False,
            "source": "user",
            "unique_id": None,
            "disabled_by": None,
        }
        self.store(storage, "auth", auth)
        self.store(storage, "core.config_entries", {"entries": [entry]})

    @staticmethod
    def store(storage, key, data):
        whole = {"version": 1, "minor_version": 1, "key": key, "data": data}
        (storage / key).write_text(json.dumps(whole))

    def start(self, automations):
        # As the guide says that a person does it.
        blueprints = self.folder / "blueprints/automation/camscribe"
        blueprints.mkdir(parents=True, exist_ok=True)
        shutil.copy(BLUEPRINT, blueprints)
        # JSON is YAML.
        settings = SETTINGS.format(port=self.port, automations=json.dumps(automations))
        (self.folder / "configuration.yaml").write_text(settings)
        command = [sys.executable, Path(__file__).with_name("launch.py"), "-c", self.folder]
        with open(self.folder / "output.log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        now = int(time.time())
        payload = {"iss": TOKEN, "iat": now, "exp": now + 3600}
        self.headers = {"Authorization": f"Bearer {jwt.encode(payload, KEY, algorithm='HS256')}"}

    async def ready(self):
        """Waits until it runs. The first start installs what its integrations need."""
        end = time.monotonic() + 600
        while time.monotonic() < end:
            assert self.process.poll() is None, "Home Assistant has ended"
            try:
                if (await self.get("config"))["state"] == "RUNNING":
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
        raise AssertionError("Home Assistant does not start")

    async def stop(self):
        self.process.terminate()
        while self.process.poll() is None:
            await asyncio.sleep(0.1)

    async def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def request(self, method, path, **arguments):
        url = f"http://127.0.0.1:{self.port}/api/{path}"
        async with aiohttp.request(method, url, headers=self.headers, **arguments) as answer:
            return answer.status, await answer.json()

    async def get(self, path):
        status, answer = await self.request("GET", path)
        if status >= 400:
            raise aiohttp.ClientError(f"{path}: {status} {answer}")
        return answer

    async def file(self, path):
        """The type and the bytes of what is at this path of its web server."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.request("GET", url, headers=self.headers) as answer:
            assert answer.status == 200, f"{path}: {answer.status}"
            return answer.content_type, await answer.read()

    async def call(self, domain, service, **data):
        status, answer = await self.request("POST", f"services/{domain}/{service}", json=data)
        assert status == 200, answer

    async def state(self, entity):
        """The state of an entity; None: it has none."""
        status, answer = await self.request("GET", f"states/{entity}")
        return answer if status == 200 else None

    async def has_state(self, entity, wanted):
        state = await self.state(entity)
        return state is not None and state["state"] == wanted

    async def known(self, entity):
        state = await self.state(entity)
        return state if state and state["state"] not in ("unknown", "unavailable") else None

    async def ask(self, kind, **arguments):
        """Asks over the websocket, as the browser's interface does."""
        token = self.headers["Authorization"].removeprefix("Bearer ")
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://127.0.0.1:{self.port}/api/websocket") as socket:
                await socket.receive_json()
                await socket.send_json({"type": "auth", "access_token": token})
                await socket.receive_json()
                await socket.send_json({"id": 1, "type": kind} | arguments)
                answer = await socket.receive_json()
                assert answer["success"], answer
                return answer["result"]

    def complaints(self):
        return self.complaints_in(self.folder)

    @staticmethod
    def complaints_in(folder):
        """What it logged about messages and templates. That the broker was away it logs with good reason."""
        log = "".join(file.read_text() for file in folder.glob("home-assistant.log*"))
        components = r"automation|binary_sensor|blueprint|event|image|sensor|mqtt(?!\.client)"
        of = rf"helpers\.(template|entity|config_validation)|components\.({components})"
        about = re.compile(rf"(WARNING|ERROR) .*\[homeassistant\.({of})")
        return [line for line in log.splitlines() if about.search(line)]
