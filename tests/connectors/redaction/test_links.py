"""Links that everyone may follow, links of one person, and e-mail addresses."""

import pytest

from connectors.redaction.redactor import Redactor

PUBLIC = [
    "https://acme.zendesk.com/hc/en-us/articles/360012345678-How-do-I-reset-my-password",
    "https://acme.freshdesk.com/support/solutions/articles/43000012345-reset-password",
    "https://blog.example/2024/05/01/10-ways-to-save-energy-at-home",
    "https://example.com/tickets?state=open",
    "https://shop.example/?code=SUMMER24",
    "https://shop.example/sale?utm_source=newsletter&utm_medium=email&utm_campaign=spring_sale_2024_week_12_final",
    "https://shop.example/list?page=2&sort=asc",
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ&list=PLrAXtmErZgOeiKm4sgNOknGvNjby9efdf&si=Yk3bQ5l1aB2cD3eF",
    "https://youtu.be/dQw4w9WgXcQ?si=Yk3bQ5l1aB2cD3eF",
    "https://apps.apple.com/gb/app/acme-energy/id1234567890",
    "https://play.google.com/store/apps/details?id=com.acme.energy2024&hl=en",
    "https://h.example/orders?page=2&sort=asc",
    "https://h.example/help/how-do-i-return-a-lamp-from-2024",
    "https://intercom.help/acme/en/articles/1234567-reset-your-password",
    "https://support.example/hc/de/articles/4408824283025-Wie-setze-ich-mein-Passwort-zur%C3%BCck",
    "https://support.example/hc/ja/articles/360012345678-パスワードの再設定",
    "https://help.example/reset-password",
    "https://help.example/account/password-reset/how-to-2024",
    "https://example.com/faq#section-12",
    "https://example.com/products/SKU-12345678",
    "https://shop.example/products/lamp-2000?variant=39402093412345",
    "https://docs.example.com/en/v2.10.3/install/linux-x86-64.html",
    "https://github.com/acme/app/commit/3f2504e04f8941d39a0c0305e82c33013f2504e0",
    "https://www.example.com/news/2024-05-06-new-opening-hours",
    "https://example.com/search?q=how+to+reset+my+password+2024",
    "https://example.com/page?id=12345&lang=en",
    "https://example.com/de/hilfe/artikel/1234567890/passwort-vergessen",
    "https://www.amazon.co.uk/dp/B08N5WRWNW/ref=sr_1_3?keywords=lamp&qid=1620000000&sr=8-3",
    "https://example.com/?fbclid=IwAR0abcDEF123ghiJKL456mnoPQR789stuVWX",
    "https://example.com/?gclid=EAIaIQobChMI9aPQ1234567abcdEFGH",
    "https://forms.example/contact?topic=password-reset",
    "https://help.example/articles/tracking/360012345",
    "https://example.com/tracking",
    "https://example.com/orders/how-to-track-my-order",
    "https://example.com/returns/policy-2024",
    "https://shop.example/cart?coupon=WELCOME10&code=BLACKFRIDAY2024",
    "https://example.com/page?session=morning",
    "https://example.com/events?ticket=adult",
    "https://www.gov.example/guidance/covid-19-2021-2022-support",
    "https://status.example.com/incidents/2024-05-06",
    "https://example.com/category/phones/iphone-15-pro-max-256gb-blue-titanium",
    "https://learn.example/kb/KB0012345",
    "https://example.com/kb_view.do?sysparm_article=KB0012345",
    "https://maps.example/?q=51.5074,-0.1278",
    "https://example.com/de-de/article/Wie-aendere-ich-mein-Passwort-12345678901",
    "https://www.notion.so/Returns",
    "https://example.com/newsletter/issue-2024-12?ref=footer",
    "https://example.com/help?topic=reset&state=closed&sort=created_desc",
    "https://desk.example/portal/en/kb/articles/how-to-reset-2fa",
    "https://example.com/help/code=404",
    "https://community.example/t/how-to-reset-my-router/12345",
    "https://community.example/t/how-to-reset-my-router/12345/7?u=jane",
    "https://example.com/filter?state=CA&code=US-CA",
    "https://example.com/sale/black-friday-2024?code=EXTRA20OFF&utm_content=a1b2c3d4e5f6a7b8c9d0e1f2",
    "www.example.com/help/articles/12-reset",
    "https://support.example/solution/articles/2100012345-wie-kann-ich-mein-passwort-zuruecksetzen",
    "https://cdn.example.com/files/terms-and-conditions-2024-v3.pdf",
]  # fmt: skip
PRIVATE = [
    "https://h.example/reset?token=ab12cd34",
    "www.h.example/login?session=9f8e7d",
    "https://h.example/v/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    "https://h.example/#access_token=abcdef",
    "https://example.com/track?email=jane%40example.com",
    "https://shop.example/reset-password/9f8e7d6c5b4a",
    "https://app.example/magic/AbC123dEf456",
    "https://app.example/auth/callback?code=4/0AX4XfWhbQ2z&state=xyzABC123",
    "https://bucket.s3.amazonaws.com/a.pdf?X-Amz-Expires=300&X-Amz-Signature=abcdef0123456789",
    "https://storage.example/x?sv=2020&sig=abc%2Fdef%3D",
    "https://shop.example/orders/12345678",
    "https://shop.example/order/AB-12345678/status",
    "https://dhl.example/track?trackingNumber=JD014600003RU",
    "https://shop.example/track/1Z999AA10123456784",
    "https://app.example/verify?code=123456",
    "https://app.example/invite/x8Kd92LmQ",
    "https://app.example/u/3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "https://docs.google.com/document/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit",
    "https://app.example/#/reset/9f8e7d6c5b4a3f2e",
    "https://meet.example/j/123456789?pwd=abcDEF123",
    "https://example.com/unsubscribe?uid=12345678",
    "https://example.com/login?otp=1234",
    "https://dropbox.example/s/a1b2c3d4e5f6g7h/file.pdf",
    "https://example.com/confirm/MTIzNDU2Nzg5MA",
    "https://example.com/api?key=AIzaSyA1234567890abcdefghijklm",
    "https://example.com/session/abc123def456ghi789jkl0",
    "https://shop.example/o/abcdefg1234567hij8901234ab",
    "https://example.com/account/customer/12345678",
    "https://example.com/orders?order_id=123456",
    "https://example.com/x?sid=abcdef",
    "https://example.com/activate/abcdefgh12345678",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXabcd1234EFGH5678",
    "https://example.com/p/QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
    "https://example.com/cb?id_token=x.y.z1",
]  # fmt: skip
ADDRESSES = [
    ("联系alice@example.com", "联系[EMAIL_1]"),
    ("jane.doe＠example.com", "[EMAIL_1]"),
    ("пётр@пример.рф", "[EMAIL_1]"),
    ("https://example.com/track?email=jane%40example.com", "https://example.com/[URL_1]"),
    ("jane.doe\u00ad@example.com", "[EMAIL_1]"),
    ("Mail Vera.Holm@post.example please", "Mail [EMAIL_1] please"),
    ("a@x.example, A@X.example; b@x.example", "[EMAIL_1], [EMAIL_1]; [EMAIL_2]"),
    ("vera+lamps@mail.post.example.", "[EMAIL_1]."),
    ("邮箱alice@example.com请回复", "邮箱[EMAIL_1]请回复"),
    ("мой адрес пётр@пример.рф, спасибо", "мой адрес [EMAIL_1], спасибо"),
    ("почтаalice@example.com", "почта[EMAIL_1]"),
    ("jane (at) example (dot) com", "[EMAIL_1]"),
    ("jane[at]example[dot]com", "[EMAIL_1]"),
    ("jane at example dot com", "[EMAIL_1]"),
    ("jane.doe at example.com", "[EMAIL_1]"),
    ("jane&#64;example.com", "[EMAIL_1]"),
    ("jane&#x40;example&period;com", "[EMAIL_1]"),
    ("jane&commat;example.com", "[EMAIL_1]"),
    ("jane%40example.com", "[EMAIL_1]"),
    ("email=jane%40example.com&x=1", "email=[EMAIL_1]&x=1"),
    ("my email is jane at example.com", "my email is [EMAIL_1]"),
    ("janedoe at gmail.com", "[EMAIL_1]"),
    ("jane{at}gmail.com", "[EMAIL_1]"),
    ("用户@例子.中国", "[EMAIL_1]"),
    ("联系用户@例子.中国请回复", "[EMAIL_1]请回复"),
    ("user@예제.한국으로 보내", "[EMAIL_1]으로 보내"),
    ("alice@example.com으로 보내", "[EMAIL_1]으로 보내"),
    ("info@müller.de", "[EMAIL_1]"),
    ("jörg@müller.de", "[EMAIL_1]"),
    ("jose\u0301@exa\u0308mple.com", "[EMAIL_1]"),
    ("राम@उदाहरण.भारत", "[EMAIL_1]"),
    ("mailto:jane@example.com?subject=x", "mailto:[EMAIL_1]?subject=x"),
    ("o'brien@example.com", "[EMAIL_1]"),
    ("'jane@example.com'", "'[EMAIL_1]'"),
    ("jane arroba example punto com", "[EMAIL_1]"),
    ("jane chiocciola example punto it", "[EMAIL_1]"),
    ("max (ät) web.de", "[EMAIL_1]"),
    ("jane @ example.com", "[EMAIL_1]"),
    ("<jane@example.com>", "<[EMAIL_1]>"),
    ("jane@xn--e1afmkfd.xn--p1ai", "[EMAIL_1]"),
    ("δοκιμή@παράδειγμα.ευ", "[EMAIL_1]"),
    ("ทดสอบ@example.co.th", "[EMAIL_1]"),
    ("email:alice@例え.jpです", "email:[EMAIL_1]です"),
    ("jane AT example DOT com", "[EMAIL_1]"),
    ("jane_doe99@sub.mail.example.co.uk,", "[EMAIL_1],"),
    ("Contact:jane@EXAMPLE.COM.", "Contact:[EMAIL_1]."),
    ("عنوان@مثال.موقع", "[EMAIL_1]"),
    ("jane@example.com.Please reply", "[EMAIL_1].Please reply"),
]  # fmt: skip
NO_ADDRESSES = [
    "look at example.com",
    "meet me at example.com",
    "we are at shop.example.com now",
    "@support is there, 5 @ 20 each",
    "see you at 5 at the shop. Com",
    "I looked at the dot point",
    "it is 20 % off at store.example",
    "Arrive at noon. Dot the i",
    "shop online at example.com",
    "10 at 5.50 each",
    "open at 9.00 at London.",
    "@ home.alone",
    "node_modules/@types/node",
    "npm i @angular/core@17.0.1 now",
]  # fmt: skip


@pytest.mark.parametrize("link", PUBLIC)
def test_a_page_for_everyone_stays(link):
    text = f"please see {link} for it"
    assert Redactor().redact_text(text) == text


@pytest.mark.parametrize("link", PRIVATE)
def test_a_link_that_opens_something_of_one_person_goes(link):
    redacted = Redactor().redact_text(f"please see {link} for it")
    assert redacted.endswith("/[URL_1] for it")
    assert link.rpartition("/")[2] not in redacted


@pytest.mark.parametrize(("text", "expected"), ADDRESSES)
def test_addresses_are_found_in_any_script_and_disguise(text, expected):
    assert Redactor().redact_text(text) == expected


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_places_and_packages_are_no_addresses(text):
    assert Redactor().redact_text(text) == text


def test_an_address_has_one_placeholder_in_any_disguise():
    text = "jane@example.com, jane (at) example (dot) com, jane＠example.com, JANE&#64;example.com"
    assert Redactor().redact_text(text) == "[EMAIL_1], [EMAIL_1], [EMAIL_1], [EMAIL_1]"
