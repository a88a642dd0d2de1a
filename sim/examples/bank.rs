fn main() { #[cfg(feature="plants")] if let Ok(p)=std::env::var("PLANT") { proto::plant::plant(proto::plant::Plant::ALL.into_iter().find(|x| x.name()==p)); }
let a: Vec<String> = std::env::args().collect();
 if a[1]=="trace" { println!("{:?}", sim::run::bank_seed(a[2].parse().unwrap(), true).map_err(|e| e.to_string())); return; }
 let t=std::time::Instant::now(); let (x,y)=(a[1].parse().unwrap(), a[2].parse().unwrap());
 let s = sim::run::bank(x..y, 2, 5, &|_| true); println!("{s:?} {:?}", t.elapsed()); }
