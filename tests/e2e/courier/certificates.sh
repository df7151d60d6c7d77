# Makes an authority, and certificates of it and others, in the directory that is given.
set -eu; cd "$1"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() { key "$1"; openssl req -x509 -key "$1.key" -out "$1.pem" -days 30 -subj "/CN=$1" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign; }
# certificate NAME AUTHORITY SUBJECTALTNAME DAYS
certificate() { key "$1"; printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\n' "$3" > "$1.ext"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days "$4" -extfile "$1.ext" -out "$1.pem"; }
here=DNS:localhost,IP:127.0.0.1
authority ca; authority stranger
certificate right ca "$here" 10
certificate other_name ca DNS:id.example 10
certificate other_ca stranger "$here" 10
certificate expired ca "$here" 10; certificate early ca "$here" 10
# openssl x509 gives no certificate a start that is not now.
for it in expired:20200101000000Z:20200201000000Z early:20900101000000Z:20910101000000Z; do
  name=${it%%:*}; rest=${it#*:}; : > index.txt
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.conf
  openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in $name.csr -extfile $name.ext \
    -startdate "${rest%%:*}" -enddate "${rest#*:}" -notext -out $name.pem
done
key self_signed; openssl req -x509 -key self_signed.key -out self_signed.pem -days 30 -subj /CN=localhost -addext "subjectAltName=$here"
