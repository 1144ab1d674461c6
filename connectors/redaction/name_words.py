"""Words in author fields that are not names, and names that are also words."""

from connectors.redaction.folding import folded_words

ROLES = frozenset(
    folded_words("""
    agent assistant support customer client user visitor guest bot chatbot system admin administrator
    operator advisor adviser representative rep staff helpdesk service care sales team desk human virtual
    automated the a an our of and from at in via bei chez for with
    kunde kundin kundenservice mitarbeiter mitarbeiterin besucher gast benutzer betreuer
    conseiller conseillère utilisateur visiteur cliente agente usuario visitante asesor utente
    anonymous unknown anonym unbekannt inconnu anónimo
    jr ii iii phd md esq mba bsc msc
    mr mrs ms mx miss dr prof sir madam herr frau monsieur madame mme mlle señor señora sr sra signor signora
    клиент оператор агент поддержка пользователь
    """)
)
"""An author field of only these words is a role, and stays."""

ROLES_UNSPACED = folded_words(
    "客服 顾客 顧客 客户 客戶 用户 用戶 访客 訪客 机器人 機器人 系统 系統 管理员 管理員 助手 匿名"
    " お客様 お客さま カスタマー サポート オペレーター 担当者 担当 ゲスト ユーザー ボット"
    " 고객센터 고객 상담원 상담사 관리자 사용자 손님 챗봇 시스템 익명 ลูกค้า เจ้าหน้าที่ แอดมิน"
)
ORGANISATIONS_UNSPACED = folded_words(
    "公司 集团 集團 银行 銀行 团队 團隊 酒店 商店 中心 株式会社 会社 チーム センター ショップ 部 課"
    " 주식회사 회사 은행 센터 팀 호텔 บริษัท ธนาคาร"
)

ORGANISATIONS = frozenset(
    folded_words("""
    team desk department dept inc ltd limited llc llp gmbh ag kg ug ohg mbh plc corp corporation sarl sas srl
    bv nv oy aps pty holding holdings helpdesk helpline hotline kundenservice kundendienst abteilung
    ооо оао зао
    """)
)
"""A part of an author field with one of these is an organisation, not a person."""

ORGANISATIONS_OR_SURNAMES = frozenset(folded_words("bank shop store hotel company"))
"""As the last word: "Lloyds Bank" is an organisation, "Anna Bank" is not."""

MAILBOXES = frozenset(
    folded_words("""
    info noreply no reply donotreply hello hi contact kontakt office mail email postmaster webmaster billing
    help service services enquiries inquiries orders order accounts account shop store news newsletter
    feedback marketing jobs careers press legal privacy security abuse root test hr it me my mein meine
    buchhaltung rechnung rechnungen bestellung empfang praxis verwaltung contacto ventas ayuda soporte
    """)
)
"""Before an @, these are not a person's name."""

PARTICLES = frozenset(
    folded_words("""
    van von vom zum zur der den dem des del della dello degli dei dos das der ter ten het
    bin ibn bint abu abd ben bar mac los las san santa saint sankt della und
    """)
)
"""Parts of surnames that are not a surname alone."""

ALSO_WORDS = frozenset(
    folded_words("""
    will mark may april june august grace bill hope rose art sue pat rob jack chase frank drew max faith joy
    dawn summer autumn iris ivy lily ruby pearl crystal amber heather rich guy dean earl duke miles wade dale
    cliff glen lane reed penny christian angel destiny mason carter hunter parker taylor baker cook king young
    long short white brown black green price page day bush wood stone ford church field case grant chance
    sandy sunny patience gene dick peace bishop cash chip cole daisy ginger holly honey jade jewel jean jean
    mercy melody misty opal olive pierce porter ray robin rusty sky skip star stormy victor ward wolf
    son sohn klein gross groß lang kurz jung alt neu weiß schwarz braun roth rot koch bauer weber richter
    schneider fischer vogel fuchs könig kaiser sommer winter herbst berg stein baum post mai
    rose marie fleur petit grand blanc noir roi leroy mar luz paz cruz rosa blanca
    """)
)
"""Names that are words: replaced only where they do not begin a sentence."""

NOUNS = frozenset(
    folded_words("""
    may april june august summer autumn dawn page price case day field church king bishop bush wood stone
    ford lane star cash chip post sommer winter herbst berg stein baum mai vogel fuchs könig kaiser richter
    koch bauer schneider fischer rose wolf sohn son sky
    """)
)
"""Those of them that are also written with a capital: months, and German nouns."""

NOT_BEFORE_NAMES = frozenset(
    folded_words("""
    in on by of since until till before after during the this that last next every each early late mid from
    to between a an my your our no and or im am vom zum beim den dem der die das des ein eine einen einem
    diesen dieser dieses letzten nächsten kein keine unser unsere ihr ihre mein meine seit bis ab
    le la les un une du de des el los las en il
    """)
)
"""Before one of NOUNS: "in May", "im Sommer"."""

COMMON = frozenset(
    folded_words("""
    hello hi hey thanks thank please sorry yes no not ok okay good great happy best better dear kind regards
    welcome cheers sure fine nice cool super mega big small old new first last next one two three
    i we you he she they it my your our his her their this that these those there here then now today tomorrow
    yesterday monday tuesday wednesday thursday friday saturday sunday january february march july september
    october november december can could would should might must have has had do does did is are was were be
    been what when where who why how which if so but or as by to on off out up down all any some more most
    help info contact mail email account payment delivery shipping return returns refund order orders invoice
    customer service support home work house family love life time world power star hot red blue orange silver
    gold golden real true free lucky little sweet dark light night moon sun water fire music game gamer player
    master boss lord lady girl boy man woman mom mum dad baby brother sister friend cat dog super ultra pro web online digital tech
    bitte danke hallo guten tag morgen abend liebe lieber viele grüße ja nein ich wir sie das ist ein eine
    kunde bestellung rechnung lieferung konto montag dienstag mittwoch donnerstag freitag samstag sonntag
    januar februar märz juni juli oktober dezember haus garten
    bonjour merci oui non je nous vous commande facture maison
    hola gracias por favor sí yo nosotros pedido casa
    """)
)
"""Words that a field may hold and that never mean a person alone."""

GIVEN = frozenset(
    folded_words("""
    aaron adam adrian agnes ahmed aisha alan albert alejandro alex alexander alexandra alexis alfred ali alice alicia
    alison amanda amelia amina amy ana anastasia andrea andreas andrew andrzej angela anita anja anna anne
    annika anthony antoine anton antonio ashley astrid barbara beatrice ben benjamin bernd bernard bianca
    birgit bob brandon brian bruno camille carla carlos carmen carol caroline catherine charles charlotte
    chiara chloe chris christina christine christoph christopher claire clara claudia daniel daniela david
    deborah denise dennis diana diego dieter dirk dmitri dominik donald dorothy edward elena elif elisabeth
    elizabeth ella ellen emil emily emma eric erik esther eva evelyn fatima felix fernando florian francesca
    francesco francisco franz frederik friedrich gabriel georg george gerald gerhard giovanni giulia gloria
    greta guillaume gustav hanna hannah hans harry heidi heike heinz helen helena helga henry hugo ian ibrahim
    ines inga ingrid irene irina isabel isabella ivan jacob jacques jakub james jan jana jane janet jason
    javier jean jennifer jens jeremy jessica joan joanna joe joel johan johann johanna john jonas jonathan
    jorge jose joseph joshua juan judith julia julian julie jürgen justin kai karen karin karl kate katharina
    katherine kathleen katja katrin kelly kenneth kevin klaus kristin larry lars laura lauren lea lena leon
    leonie lewis liam linda lisa lorenzo louis louise luca lucas lucia lucy luis lukas luke madison magdalena
    manfred manuel manuela marc marco marcus margaret maria marie marina mario marion markus marta martha
    martin martina mary mateusz matteo matthew matthias maurice maximilian megan mehmet melissa mia michael
    michaela michal michel michelle miguel mike mohamed mohammed monica monika muhammad mustafa nadine nancy
    natalia natalie nathan nicholas nicole niklas nina noah nora odile olga oliver olivia olivier oscar otto
    pablo pamela pascal patricia patrick paul paula pauline pedro peter petra philip philipp piotr priya rachel
    ralf raymond rebecca renate ricardo richard robert roberto roger roland ronald rosa rosie ruth ryan sabine
    sabrina sally samantha samuel sandra sara sarah scott sebastian sergei sharon silke silvia simon simone
    sofia sonja sophia sophie stefan stefanie stephanie stephen steven susan susanne svenja tanja tanya teresa
    thomas thorsten tim timothy tina tobias tom tomas tony tyler ulrich ulrike ursula uwe valentina vanessa
    vera veronica victoria vincent virginia walter werner wilhelm william wolfgang xavier yasmin yusuf yvonne
    zoe анна иван мария сергей александр елена ольга дмитрий наталья андрей татьяна михаил
    """)
)
"""Frequent first names of people who write to European and American desks (national registers)."""
