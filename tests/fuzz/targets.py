"""All targets, by name."""

import export_targets
import file_targets
import folder_targets
import model_targets
import server_targets

_MODULES = (file_targets, folder_targets, model_targets, export_targets, server_targets)
TARGETS = {target.name: target for module in _MODULES for target in module.TARGETS}
