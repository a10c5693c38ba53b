"""Takes credentials out of text that is shown or stored: addresses with passwords, signed URLs, access keys."""

import re

HIDDEN = "***"
_USER = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]*:[^\s/@'\"]*@")
_SECRET_NAMES = (
    r"x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential|signature|awsaccesskeyid|"
    r"googleaccessid|sig|token|access_token|api_key|apikey|key|secret|secret_key|password|passwd|pwd"
)
_PARAMETER = re.compile(rf"(?P<name>[?&;](?:{_SECRET_NAMES})=)[^&\s'\"#]+", re.IGNORECASE)
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_ASSIGNMENT = re.compile(
    r"(?P<name>\b(?:aws_)?(?:secret_access_key|session_token|account_key|sas_token)\b['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text with passwords, signatures and keys replaced by ``***``; anything else stays as it is."""
    if "@" in text:
        text = _USER.sub(rf"\g<scheme>{HIDDEN}@", text)
    if "=" in text or ":" in text:
        text = _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
        text = _ASSIGNMENT.sub(rf"\g<name>{HIDDEN}", text)
    return _ACCESS_KEY.sub(HIDDEN, text)
