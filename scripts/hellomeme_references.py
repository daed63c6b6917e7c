"""What the webui loads: hooks only, each delegates."""

from modules import script_callbacks, scripts

from lib_hellomeme.webui import references, references_panel


class HelloMemeReferences(scripts.Script):
    def title(self):
        return references.WHO

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        units = references_panel.build_panel("img2img" if is_img2img else "txt2img")
        self.infotext_fields = references_panel.paste_fields(units)
        return [widget for unit in units for widget in unit.values()]

    def process(self, p, *arguments):
        references.prepare(p, arguments)

    def process_before_every_sampling(self, p, *_, x, **__):
        references.prepare_sampling(p, x)


script_callbacks.on_ui_settings(references_panel.register_settings)
