"""What the webui loads: hooks only, each delegates."""

from modules import script_callbacks, scripts

from lib_hellomeme.webui import axes, panel, preset, run


class HelloMeme(scripts.Script):
    def __init__(self):
        self.preset = preset.Preset()

    def title(self):
        return "HelloMeme"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def after_component(self, component, **_):
        self.preset.found(component)

    def ui(self, is_img2img):
        widgets = panel.build_panel("img2img" if is_img2img else "txt2img", self.preset)
        self.infotext_fields = panel.paste_fields(widgets)
        return list(widgets.values())

    def process(self, p, *arguments):
        run.prepare(p, arguments)

    def process_before_every_sampling(self, p, *arguments, x, c, uc, **_):
        run.prepare_sampling(p, x, (c, uc))


script_callbacks.on_before_ui(axes.register_axes)
