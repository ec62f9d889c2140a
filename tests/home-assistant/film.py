"""An RTSP camera that shows a blue square, and a red circle beside it while it is told to. Prints its URI; each line `on`
or `off` of standard input says whether the circle is there. Ends with its input. For Debian's own Python, which has
GStreamer (python3-gi, gir1.2-gst-rtsp-server-1.0)."""

import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

WIDTH, HEIGHT = 640, 360
RED, BLUE, GREY = bytes([255, 0, 0]), bytes([0, 0, 255]), bytes([128, 128, 128])
# The half of the size of both, and their middle, pixels.
SIZE, SQUARE, CIRCLE = 50, (160, 180), (480, 180)


def picture(circle):
    """The frame, RGB."""
    def colour(x, y):
        away = lambda it: (abs(x - it[0]), abs(y - it[1]))
        dx, dy = away(CIRCLE)
        if circle and dx**2 + dy**2 < SIZE**2:
            return RED
        return BLUE if max(away(SQUARE)) < SIZE else GREY

    return b"".join(colour(x, y) for y in range(HEIGHT) for x in range(WIDTH))


LAUNCH = f"""( appsrc name=camera is-live=true do-timestamp=true format=time
    caps=video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=10/1
    ! videoconvert ! video/x-raw,format=I420
    ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 )"""
FRAMES = {"on": picture(True), "off": picture(False)}
shown = "off"


def push(camera, _bytes):
    time.sleep(0.1)
    camera.emit("push-buffer", Gst.Buffer.new_wrapped(FRAMES[shown]))


def configure(_factory, media):
    media.get_element().get_by_name("camera").connect("need-data", push)


def listen(loop):
    global shown
    for line in sys.stdin:
        shown = line.strip()
    loop.quit()


def main():
    Gst.init(None)
    server, factory, loop = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory(), GLib.MainLoop()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory.set_launch(LAUNCH)
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/stream", flush=True)
    threading.Thread(target=listen, args=(loop,), daemon=True).start()
    loop.run()


main()
