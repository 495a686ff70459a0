"""The Debian packages (release 12, main) the corpus is built from. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """One source of text. `suffixes` picks files; `folders`, when given, keeps only paths that contain one of them."""

    name: str
    domain: str
    suffixes: tuple[str, ...]
    limit: int = 6_000_000  # bytes of text taken at most
    folders: tuple[str, ...] = ()


CODE_SCRIPT = (".js", ".ts", ".mjs", ".cjs")
MANUAL = (".gz",)
HTML = (".html",)

PACKAGES = (
    Package("linux-source-6.1", "c", (".tar.xz",), 21_500_000, ("/kernel/", "/mm/", "/lib/", "/fs/", "/net/", "/block/", "/crypto/", "/tools/", "/sound/core/", "/drivers/base/", "/drivers/usb/", "/drivers/md/")),
    Package("openjdk-17-source", "java", (".zip",), 21_500_000, ("java.base/", "java.desktop/", "java.net.http/", "java.sql/", "java.xml/", "jdk.compiler/", "jdk.jshell/", "java.logging/")),
    Package("rust-src", "rust", (".rs",), 21_500_000),
    Package("libpython3.11-stdlib", "python", (".py",)),
    Package("python3-django", "python", (".py",)),
    Package("python3-sympy", "python", (".py",), 5_000_000),
    Package("python3-twisted", "python", (".py",), 5_000_000),
    Package("python3-sqlalchemy", "python", (".py",)),
    Package("python3-scipy", "python", (".py",), 4_000_000),
    Package("python3-numpy", "python", (".py",), 4_000_000),
    Package("python3-networkx", "python", (".py",), 4_000_000),
    Package("node-typescript", "javascript", CODE_SCRIPT, 4_000_000, ("/typescript.js", "/lib.")),
    Package("wordpress", "javascript", (".js",), 4_000_000, ("/wp-admin/js/", "/wp-includes/js/dist/")),
    Package("libjs-dojo-core", "javascript", (".js",)),
    Package("libjs-three", "javascript", (".js",), 3_000_000, ("/examples/", "/src/")),
    Package("libjs-openlayers", "javascript", (".js",), 3_000_000),
    Package("libjs-angularjs", "javascript", (".js",), 2_000_000),
    Package("libjs-codemirror", "javascript", CODE_SCRIPT),
    Package("webpack", "javascript", CODE_SCRIPT),
    Package("node-babel7", "javascript", CODE_SCRIPT),
    Package("node-jsdom", "javascript", CODE_SCRIPT, 2_500_000),
    Package("node-sinon", "javascript", CODE_SCRIPT, 1_500_000),
    Package("node-lodash", "javascript", CODE_SCRIPT),
    Package("node-vue", "javascript", CODE_SCRIPT, 1_500_000),
    Package("node-core-js", "javascript", CODE_SCRIPT),
    Package("node-graphql", "javascript", CODE_SCRIPT),
    Package("node-undici", "javascript", CODE_SCRIPT),
    Package("node-terser", "javascript", CODE_SCRIPT),
    Package("cinnamon-common", "javascript", (".js",)),
    Package("gnome-shell-extensions", "javascript", (".js",)),
    Package("eslint", "javascript", CODE_SCRIPT),
    Package("jest", "javascript", CODE_SCRIPT),
    Package("rollup", "javascript", CODE_SCRIPT),
    Package("npm", "javascript", CODE_SCRIPT),
    Package("mocha", "javascript", CODE_SCRIPT),
    Package("manpages", "english", MANUAL),
    Package("manpages-dev", "english", MANUAL),
    Package("postgresql-doc-15", "english", HTML, 4_000_000),
    Package("debian-handbook", "english", HTML, 1_500_000, ("/en-US/",)),
    Package("git-doc", "english", HTML, 1_500_000),
    Package("apache2-doc", "english", HTML, 2_500_000, ("/en/",)),
    Package("libreoffice-help-en-us", "english", HTML, 3_000_000),
    Package("dict-gcide", "english", (".dict.dz",), 4_500_000),
    Package("debian-policy", "english", HTML, 1_000_000, ("/policy.html/",)),
    Package("gnucash-docs", "english", HTML, 1_500_000, ("/C/", "-en", "/en/")),
    Package("nodejs-doc", "english", HTML, 1_500_000),
    Package("bash-doc", "english", HTML, 800_000),
    Package("manpages-de", "german", MANUAL, 12_000_000, ("/man/de",)),
    Package("manpages-de-dev", "german", MANUAL, 5_000_000, ("/man/de",)),
    Package("libreoffice-help-de", "german", HTML, 8_000_000),
    Package("gimp-help-de", "german", HTML, 3_000_000),
    Package("debian-reference-de", "german", HTML, 1_500_000),
    Package("developers-reference-de", "german", HTML, 1_500_000),
    Package("debian-faq-de", "german", HTML, 1_500_000),
    Package("debian-handbook", "german", HTML, 1_500_000, ("/de-DE/",)),
    Package("installation-guide-amd64", "german", HTML, 1_000_000, ("/de/",)),
    Package("manpages-fr", "french", MANUAL, 12_000_000, ("/man/fr",)),
    Package("manpages-fr-dev", "french", MANUAL, 7_000_000, ("/man/fr",)),
    Package("libreoffice-help-fr", "french", HTML, 8_000_000),
    Package("gimp-help-fr", "french", HTML, 3_000_000),
    Package("debian-reference-fr", "french", HTML, 1_500_000),
    Package("developers-reference-fr", "french", HTML, 1_500_000),
    Package("debian-faq-fr", "french", HTML, 1_500_000),
    Package("debian-handbook", "french", HTML, 1_500_000, ("/fr-FR/",)),
    Package("installation-guide-amd64", "french", HTML, 1_000_000, ("/fr/",)),
    Package("apache2-doc", "french", HTML, 2_500_000, ("/fr/",)),
    Package("maint-guide-fr", "french", HTML, 500_000),
    Package("aptitude-doc-fr", "french", HTML, 800_000),
)

# For packages whose copyright file is free text or lies in another package of the same source.
LICENCES = {
    "openjdk-17-source": "GPL-2 with Classpath exception",
    "libpython3.11-stdlib": "PSF-2",
    "manpages-dev": "as manpages",
    "dict-gcide": "GPL-2+",
    "gimp-help-de": "GFDL-NIV-1.2+",
    "gimp-help-fr": "GFDL-NIV-1.2+",
    "debian-faq-de": "verbatim and modified copies permitted with the notice",
    "debian-faq-fr": "verbatim and modified copies permitted with the notice",
    "installation-guide-amd64": "GPL-2",
}
