from tests.tb_plugin.conftest import browser, chromium, page

__all__ = ["browser", "chromium", "page"]
