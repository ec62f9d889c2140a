"""Checks against Home Assistant itself, with a real broker and a real camscribe, that
- node and cameras are devices with the right names, the node's being that of its cameras' `via_device`;
- every entity has the state that it should have, the reason of a camera that is away included;
- an automation on the event entity, and one on the device trigger, run once for each description, and for no old one
  after a restart of Home Assistant, of the broker, or of camscribe;
- an alert about a red circle that comes and goes before an RTSP camera goes on and off with it, once each;
- answers to questions, alerts and the button that asks have their entities, and automations made from the blueprint
  notify of alerts (alerts.py);
- a camera that is removed takes its entities with it, and `camscribe forget` those of the node.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import aiohttp
import alerts
import paho.mqtt.client as mqtt
from ha import TIMEOUT, HomeAssistant, until

# A camera that is off is done with its clips after this time, seconds.
SETTLE = 5
NODE = "camscribe/edge1"
CAMERAS = {
    "porch": 'name = "Front porch"\nuri = "test://shapes?period=2s"\n',
    "gate": 'uri = "rtsp://127.0.0.1:{dead_port}/none"\n',
}
EVENT = "event.front_porch_new_description"
OF_CAMERA = {
    "event": ["new_description"],
    "sensor": ["description", "state", "last_clip", "asked"],
    "image": ["snapshot"],
    "button": ["describe_now"],
    "switch": ["enabled"],
    "text": ["prompt"],
}
OF_NODE = {
    "binary_sensor": ["broker"],
    "sensor": ["model", "queue_clips", "outbox_messages", "dropped_clips"],
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """mosquitto, which keeps what it retains over a restart."""

    def __init__(self, folder):
        self.port, self.config = free_port(), folder / "mosquitto.conf"
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
        )
        self.start()

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", self.config], stderr=subprocess.DEVNULL)
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("mosquitto does not listen")

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Camscribe:
    def __init__(self, program, folder, broker):
        self.program, self.folder, self.broker = program, folder, broker
        self.dead_port = free_port()
        self.config = folder / "camscribe.toml"
        self.configure(CAMERAS)

    def configure(self, cameras):
        head = f"""
            node = {{ id = "edge1", state_dir = "{self.folder}/state" }}
            model.id = "shapes"
            mqtt.url = "mqtt://127.0.0.1:{self.broker.port}"
            http.listen = ""
            defaults = {{ window = "2s", frames = 4 }}
        """
        sections = [f"[cameras.{id}]\n{text}" for id, text in cameras.items()]
        self.config.write_text(head + "\n" + "".join(sections).format(dead_port=self.dead_port))

    def start(self):
        with open(self.folder / "camscribe.log", "a") as log:
            self.process = subprocess.Popen([self.program, "run", "--config", self.config], stderr=log)

    def reload(self, cameras):
        self.configure(cameras)
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.terminate()
        assert self.process.wait() == 0, "camscribe ends with an error"

    def forget(self):
        command = [self.program, "forget", "--node", "edge1", "--config", self.config]
        return subprocess.run(command, capture_output=True, text=True, check=True)


class Listener:
    """What camscribe publishes, and what the automations answer, in order."""

    def __init__(self, broker):
        self.described, self.fired = [], {"event": [], "trigger": []} | alerts.nothing_told()
        # Of the camera that sees a red circle come and go, by id: a broker may deliver one twice.
        self.switched = {}
        self.client = mqtt.Client("listener", clean_session=False)
        self.client.on_connect = self.subscribe
        self.client.on_message = self.on_message
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def subscribe(self, *_):
        topics = [f"{NODE}/porch/description", f"{NODE}/{alerts.CIRCLE_CAMERA}/alerts", "check/+"]
        self.client.subscribe([(topic, 1) for topic in topics])

    def on_message(self, _client, _data, message):
        payload = message.payload.decode()
        if message.topic.startswith("check/"):
            self.fired[message.topic.removeprefix("check/")].append(payload)
        elif "alert" in (event := json.loads(payload)):
            self.switched[event["id"]] = event
        elif event["type"] == "description":
            self.described.append(event)

    def publish(self, topic, payload):
        self.client.publish(topic, payload, qos=1).wait_for_publish(TIMEOUT)


def automations(porch):
    """The automations that answer each description with its id. `porch`: the id of the device, once it is known."""
    event = {
        "trigger": {
            "platform": "state",
            "entity_id": EVENT,
            "not_from": "unavailable",
            "not_to": ["unavailable", "unknown"],
        },
        # An entity that is removed has no state.
        "condition": "{{ trigger.to_state is not none }}",
        "id": "{{ trigger.to_state.attributes.id }}",
    }
    trigger = {
        "trigger": {
            "platform": "device",
            "domain": "mqtt",
            "device_id": porch,
            "type": "description",
            "subtype": "new",
        },
        "condition": [],
        "id": "{{ trigger.payload_json.id }}",
    }
    return [
        {
            "id": name,
            "alias": name,
            "mode": "queued",
            "max": 100,
            "trigger": it["trigger"],
            "condition": it["condition"],
            "action": {
                "service": "mqtt.publish",
                "data": {"topic": f"check/{name}", "payload": it["id"], "qos": 1},
            },
        }
        for name, it in {"event": event, "trigger": trigger}.items()
        if porch or name == "event"
    ] + alerts.AUTOMATIONS


async def stop_watching(ha, listener):
    """Switches the camera off in Home Assistant, and waits until what it described was answered."""
    await ha.call("switch", "turn_off", entity_id="switch.front_porch_watched")
    await until("the camera is off", lambda: ha.has_state("sensor.front_porch_state", "disabled"))
    # A clip that was cut before is still described.
    seen = None
    while seen != len(listener.described):
        seen = len(listener.described)
        await asyncio.sleep(SETTLE)
    answered = lambda: listener.fired["event"][-1:] == [listener.described[-1]["id"]]
    await until("the automation answers the last description", answered)


async def watch(ha, listener, count=3):
    """Switches the camera on and waits for descriptions."""
    seen = len(listener.described)
    # A command for an entity that is not available goes nowhere.
    await until("the switch", lambda: ha.has_state("switch.front_porch_watched", "off"))
    await ha.call("switch", "turn_on", entity_id="switch.front_porch_watched")
    await until("descriptions", lambda: len(listener.described) >= seen + count)


def assert_once_each(listener, name, first):
    """Each description has one answer. `first` is how many came before the automation listened."""
    described = [event["id"] for event in listener.described[first:]]
    assert listener.fired[name] == described, f"{name}: {listener.fired[name]} are not {described}"


async def devices(ha):
    """The devices of camscribe by their identifier."""
    found = await ha.ask("config/device_registry/list")
    mine = lambda device: [id for kind, id in device["identifiers"] if kind == "mqtt"]
    return {mine(device)[0]: device for device in found if mine(device)}


async def entities(ha):
    """The entities of camscribe: their ids by unique id."""
    found = await ha.ask("config/entity_registry/list")
    return {it["unique_id"]: it["entity_id"] for it in found if it["platform"] == "mqtt"}


def unique_ids(cameras):
    of_node = {f"camscribe/edge1/{it}" for names in OF_NODE.values() for it in names}
    more = lambda camera: alerts.ENTITIES if camera == alerts.CAMERA else []
    names = lambda camera: [it for names in OF_CAMERA.values() for it in names] + more(camera)
    of = lambda camera: {f"camscribe/edge1/{camera}/{it}" for it in names(camera)}
    return of_node.union(*map(of, cameras))


async def check_devices(ha):
    await until("all entities", lambda: has_entities(ha, CAMERAS))
    found = await devices(ha)
    names = {id: device["name"] for id, device in found.items()}
    assert names == {
        "camscribe/edge1": "edge1",
        "camscribe/edge1/porch": "Front porch",
        "camscribe/edge1/gate": "gate",
    }, names
    for camera in CAMERAS:
        via = found[f"camscribe/edge1/{camera}"]["via_device_id"]
        assert via == found["camscribe/edge1"]["id"], f"{camera} is not connected by the node's device: {via}"
    return found


async def has_entities(ha, cameras):
    return set(await entities(ha)) == unique_ids(cameras)


async def check_states(ha):
    await until("the camera is online", lambda: ha.has_state("sensor.front_porch_state", "online"))
    await until("the other is offline", lambda: ha.has_state("sensor.gate_state", "offline"))
    gate = await ha.state("sensor.gate_state")
    assert "127.0.0.1" in gate["attributes"]["why"], gate
    assert (await ha.state("sensor.gate_description"))["state"] == "unavailable"
    description = await until("a description", lambda: ha.known("sensor.front_porch_description"))
    own = set(description["attributes"]) - {"friendly_name", "icon"}
    assert own == {"description", "id", "start", "end"}, own
    assert description["attributes"]["friendly_name"] == "Front porch Description", description
    last = await until("the last clip", lambda: ha.known("sensor.front_porch_last_clip"))
    assert last["attributes"]["device_class"] == "timestamp", last
    assert (await until("an event", lambda: ha.known(EVENT)))["attributes"]["event_type"] == "description"
    await until("a snapshot", lambda: ha.known("image.front_porch_snapshot"))
    await until("the prompt", lambda: ha.known("text.front_porch_prompt"))
    await until("the broker", lambda: ha.has_state("binary_sensor.edge1_broker", "on"))
    model = await ha.state("sensor.edge1_model")
    assert (model["state"], model["attributes"]["device"]) == ("shapes", "cpu"), model
    for count in ["clips_that_wait_for_the_model", "descriptions_that_wait_for_the_broker", "dropped_clips"]:
        value = await until(count, lambda: ha.known(f"sensor.edge1_{count}"))
        assert value["state"].isdigit(), value
    categories = {it["unique_id"]: it["entity_category"] for it in await ha.ask("config/entity_registry/list")}
    for id in ["porch/state", "porch/last_clip", *OF_NODE["sensor"], *OF_NODE["binary_sensor"]]:
        assert categories[f"camscribe/edge1/{id}"] == "diagnostic", id


async def check_alerts(ha, camscribe, listener):
    """Adds a camera with alerts, and removes it again."""
    await alerts.check_blueprint(ha)
    cameras = lambda rule: CAMERAS | {alerts.CAMERA: alerts.camera(rule)}
    camscribe.reload(cameras(alerts.NEVER))
    await until("all entities", lambda: has_entities(ha, cameras(alerts.NEVER)))
    await alerts.check_off(ha)
    await alerts.check_asked(ha)
    camscribe.reload(cameras(alerts.ALWAYS))
    await alerts.check_on(ha, listener)
    camscribe.reload(cameras(alerts.NEVER))
    await alerts.check_off_again(ha)
    camscribe.reload(CAMERAS)
    await until("its entities are gone", lambda: has_entities(ha, CAMERAS))
    alerts.assert_told(listener)
    print("ok  the blueprint tells of no alert twice, and of none that goes off")


async def check_red_circle(ha, camscribe, broker, listener):
    """Adds a camera before which a red circle comes and goes, restarts everything meanwhile, and removes it again."""
    if why := alerts.Film.missing():
        print(f"skipped: a red circle that comes and goes: {why}")
        return
    with alerts.Film() as film:
        cameras = CAMERAS | {alerts.CIRCLE_CAMERA: film.camera()}
        camscribe.reload(cameras)
        await until("the alert", lambda: ha.has_state(alerts.CIRCLE_ALERT, "off"))
        for state in ["on", "off", "on"]:
            await alerts.check_circle(ha, film, listener, state)
        before = await ha.state(alerts.CIRCLE_ALERT)
        camscribe.stop()
        broker.stop()
        await until("Home Assistant notices", lambda: ha.has_state(alerts.CIRCLE_ALERT, "unavailable"))
        broker.start()
        camscribe.start()
        await until("the alert is still on", lambda: ha.has_state(alerts.CIRCLE_ALERT, "on"))
        assert (await ha.state(alerts.CIRCLE_ALERT))["attributes"]["since"] == before["attributes"]["since"]
        for state in ["off", "on", "off"]:
            await alerts.check_circle(ha, film, listener, state)
        states = [it["state"] for it in listener.switched.values()]
        assert states == ["ON", "OFF"] * 3, states
        camscribe.reload(CAMERAS)
        await until("its entities are gone", lambda: has_entities(ha, CAMERAS))
    print("ok  an alert goes on and off with a red circle before an RTSP camera, once each, through restarts")


async def check_trigger(ha, device):
    triggers = await ha.ask("device_automation/trigger/list", device_id=device)
    wanted = {"domain": "mqtt", "type": "description", "subtype": "new"}
    assert any(wanted.items() <= it.items() for it in triggers), triggers


def stale(event):
    """The same description, made ten minutes ago: its id begins with the milliseconds of that time."""
    then = int((time.time() - 600) * 1000)
    id = uuid.UUID(int=then << 80 | 7 << 76 | 2 << 62 | 1)
    return json.dumps(event | {"id": str(id)})


async def check(program, folder):
    broker = Broker(folder)
    camscribe = Camscribe(program, folder, broker)
    ha = HomeAssistant(folder / "ha", broker.port, free_port())
    listener = None
    try:
        listener = Listener(broker)
        ha.start(automations(None))
        await ha.ready()
        camscribe.start()
        found = await check_devices(ha)
        print("ok  devices and entities, found while Home Assistant runs")
        await check_states(ha)
        print("ok  states, attributes and categories")
        porch = found["camscribe/edge1/porch"]["id"]
        await check_trigger(ha, porch)
        print("ok  the device trigger exists")
        await check_alerts(ha, camscribe, listener)

        await until("descriptions", lambda: len(listener.described) >= 3 and listener.fired["event"])
        await stop_watching(ha, listener)
        first = [event["id"] for event in listener.described].index(listener.fired["event"][0])
        assert_once_each(listener, "event", first)
        print(f"ok  the event fired once for each of {len(listener.fired['event'])} descriptions")

        await ha.stop()
        ha.start(automations(porch))
        await ha.ready()
        await until("the event of before", lambda: ha.known(EVENT))
        listens = len(listener.described)
        await watch(ha, listener)
        await stop_watching(ha, listener)
        assert_once_each(listener, "event", first)
        print("ok  no event after a restart of Home Assistant")
        assert_once_each(listener, "trigger", listens)
        print("ok  the device trigger fired once for each description")

        broker.stop()
        await until("Home Assistant notices", lambda: ha.has_state(EVENT, "unavailable"))
        broker.start()
        await until("Home Assistant is back", lambda: ha.known(EVENT))
        await until("camscribe is back", lambda: ha.has_state("binary_sensor.edge1_broker", "on"))
        await until("the state is back", lambda: ha.has_state("sensor.front_porch_state", "disabled"))
        await watch(ha, listener)
        await stop_watching(ha, listener)
        for name, since in [("event", first), ("trigger", listens)]:
            assert_once_each(listener, name, since)
        print("ok  no event after a restart of the broker")

        camscribe.stop()
        await until("the node is offline", lambda: ha.has_state("binary_sensor.edge1_broker", "off"))
        await until("so is the camera", lambda: ha.has_state("sensor.front_porch_state", "unavailable"))
        camscribe.start()
        await until("the node is online", lambda: ha.has_state("binary_sensor.edge1_broker", "on"))
        await watch(ha, listener)
        await stop_watching(ha, listener)
        for name, since in [("event", first), ("trigger", listens)]:
            assert_once_each(listener, name, since)
        print("ok  no event after a restart of camscribe")

        listener.publish(f"{NODE}/porch/description", stale(listener.described[-1]))
        await until("the old description", lambda: listener.described[-1]["id"] not in listener.fired["event"])
        old = listener.described.pop()
        await watch(ha, listener)
        await stop_watching(ha, listener)
        assert old["id"] not in listener.fired["event"] + listener.fired["trigger"]
        for name, since in [("event", first), ("trigger", listens)]:
            assert_once_each(listener, name, since)
        print("ok  no event for a description that waited for ten minutes")

        await check_red_circle(ha, camscribe, broker, listener)

        only = {"porch": CAMERAS["porch"].replace("Front porch", "Garden door")}
        camscribe.reload(only)
        await until("the camera's entities are gone", lambda: has_entities(ha, only))
        named = lambda found: found["camscribe/edge1/porch"]["name"] == "Garden door"
        has_name = lambda: devices_are(ha, lambda found: len(found) == 2 and named(found))
        await until("its device is gone, and the other has its new name", has_name)
        print("ok  a removed camera is gone, a renamed one has its new name")
        await ha.stop()

        # One that starts when everything is retained already.
        camscribe.reload(CAMERAS)
        ha = HomeAssistant(folder / "late", broker.port, free_port())
        ha.start(automations(None))
        await ha.ready()
        await check_devices(ha)
        print("ok  devices and entities, found by a Home Assistant that starts later")

        camscribe.stop()
        removed = camscribe.forget().stdout.splitlines()
        await until("everything is gone", lambda: devices_are(ha, lambda found: not found))
        assert not await entities(ha)
        print(f"ok  forget removed {len(removed)} topics, and Home Assistant the devices")
        await ha.stop()
        for complaint in ha.complaints() + HomeAssistant.complaints_in(folder / "ha"):
            raise AssertionError(f"Home Assistant complains: {complaint}")
        print("ok  Home Assistant has no complaint about a message")
    finally:
        await ha.kill()
        for process in [broker, camscribe]:
            if hasattr(process, "process") and process.process.poll() is None:
                process.process.kill()
                process.process.wait()
        if listener:
            listener.client.loop_stop()


async def devices_are(ha, wanted):
    return wanted(await devices(ha))


def main():
    program = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(check(program, Path(folder)))
        except (AssertionError, aiohttp.ClientError) as error:
            print(f"FAILED  {error}")
            for log in Path(folder).glob("**/*.log"):
                print(f"--- the end of {log.relative_to(folder)}")
                print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:]))
            sys.exit(1)


main()
